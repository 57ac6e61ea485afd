"""The run directory and its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_benchmarks.figures import draw_search
from nas_benchmarks.records import EvaluationWriter, RunDirectory, WriteFailed, finite
from nas_gym.errors import MissingExtra, RunExists


def make_envs() -> Any:
    """Return eight NAS-Cell-v0 on a synthetic landscape."""
    return gymnasium.make_vec("NAS-Cell-v0", num_envs=8, evaluator="synthetic", autoreset_mode="Disabled").unwrapped


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a record file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[EvaluationWriter, list[dict[str, Any]]]:
    """Return a writer and its rows after 30 queries of random search."""
    envs = make_envs()
    writer = EvaluationWriter(tmp_path / "evaluations.jsonl", envs.space, "cache+charge")
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 30, 0, [writer])
    writer.close()
    return writer, rows_of(writer.path)


Recorded = tuple[EvaluationWriter, list[dict[str, Any]]]


def test_every_query_is_a_row(recorded: Recorded) -> None:
    """Thirty queries leave thirty numbered rows."""
    assert [row["row"] for row in recorded[1]] == list(range(1, 31))


def test_rows_hold_no_held_out_metric(recorded: Recorded) -> None:
    """Test accuracy appears in no row."""
    assert all("test_accuracy" not in row["metrics"] for row in recorded[1])


def test_best_reward_is_the_running_maximum(recorded: Recorded) -> None:
    """The column follows the rewards."""
    rewards = [row["reward"] for row in recorded[1]]
    assert [row["best_reward"] for row in recorded[1]] == [max(rewards[: count + 1]) for count in range(30)]


def test_incumbent_is_the_first_of_the_best(recorded: Recorded) -> None:
    """The writer's best architecture is that of the first row with the highest reward."""
    writer, rows = recorded
    best = max(rows, key=lambda row: row["reward"])
    assert list(writer.best_encoding or ()) == best["encoding"]


def test_rows_are_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    """Each batch is flushed at once: an agent that dies in its third batch leaves two batches."""
    envs = make_envs()
    writer = EvaluationWriter(tmp_path / "rows.jsonl", envs.space, "cache+charge")
    agent = nas_agents.make("random_search", envs, 0)
    original, calls = agent.propose, iter(range(10))

    def propose(count: int) -> list[tuple[int, ...]]:
        if next(calls) == 2:
            raise RuntimeError("the agent died")
        return original(count)

    agent.propose = propose  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="died"):
        nas_agents.run(agent, envs, 100, 0, [writer])
    assert len(rows_of(writer.path)) == 16
    writer.close()


def test_existing_directory_is_refused(tmp_path: Path) -> None:
    """Results are never overwritten."""
    RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(RunExists, match="run exists already"):
        RunDirectory.create(tmp_path / "run", {})


def test_full_disk_is_an_error_that_names_the_file() -> None:
    """Writing to a full device raises an error of this project."""
    envs = make_envs()
    writer = EvaluationWriter(Path("/dev/full"), envs.space, "cache+charge")
    with pytest.raises(WriteFailed, match=r"/dev/full.*No space left"):
        nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 8, 0, [writer])
    writer.close()


def test_nan_becomes_null() -> None:
    """JSON has no NaN; strict readers must be able to read every record."""
    assert finite({"a": float("nan"), "b": [1.0, float("inf")]}) == {"a": None, "b": [1.0, None]}


def test_figure_is_a_png(tmp_path: Path) -> None:
    """The figure is drawn with and without a known space."""
    pytest.importorskip("matplotlib")
    import numpy as np

    for name, known in (("known", np.linspace(0, 1, 50)), ("unknown", None)):
        path = tmp_path / f"{name}.png"
        draw_search(path, np.array([0.1, 0.4, 0.3]), "title", "agent", known)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without matplotlib the error names the pip command."""
    import sys

    import numpy as np

    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtra, match=r"nas-gym\[plots\]"):
        draw_search(tmp_path / "x.png", np.array([0.1]), "title", "agent", None)
