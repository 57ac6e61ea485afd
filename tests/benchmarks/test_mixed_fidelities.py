"""Searches whose agent chooses fidelities: what is compared with what, in records, figures and resumed runs."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import CONV, POOL, STOP, ToySpace

from nas_agents import EpisodeBatch, Evaluated
from nas_benchmarks.final_training import best_rows
from nas_benchmarks.metrics import best_so_far
from nas_benchmarks.records import EvaluationWriter, RunDirectory
from nas_gym.envs.core.counter import Usage
from nas_gym.errors import ResumeError
from nas_gym.search_spaces import Encoding

SPACE = ToySpace()
A, B, C = (POOL, STOP), (CONV, 0, STOP), (CONV, 1, STOP)
COMMAND = [sys.executable, "-c", "from nas_gym.cli import main; main()", "search"]

Query = tuple[Encoding, int | None, float]


def evaluated(*queries: Query, status: str = "ok") -> Evaluated:
    """Return episodes as a loop publishes them."""
    count = len(queries)
    chosen = [fidelity for _, fidelity, _ in queries if fidelity is not None]
    batch = EpisodeBatch(
        observations=np.zeros((count, 1, 6)),
        actions=np.zeros((count, 1), np.int64),
        masks=np.ones((count, 1, 4), np.bool_),
        rewards=np.array([[reward] for _, _, reward in queries]),
        lengths=np.ones(count, np.int64),
        encodings=tuple(encoding for encoding, _, _ in queries),
        status=(status,) * count,
        first_seen=np.ones(count, np.bool_),
        fidelities=np.array(chosen, np.int64) if chosen else None,
    )
    return Evaluated(batch, {}, np.ones(count), Usage(count, count, count, 1.0, 1.0))


def written(path: Path, *batches: Evaluated, before: list[dict[str, Any]] | None = None) -> EvaluationWriter:
    """Return a writer after it received some batches."""
    with closing(EvaluationWriter(path / "evaluations.jsonl", SPACE, "cache+charge", before or [])) as writer:
        for batch in batches:
            writer.on_episodes(batch)
    return writer


class TestIncumbent:
    """The best of a record."""

    def test_is_of_the_highest_fidelity(self, tmp_path: Path) -> None:
        """A lower reward at a higher fidelity is better than any at a lower one."""
        writer = written(tmp_path, evaluated((A, 1, 0.9), (B, 9, 0.5), (C, 3, 0.8)))
        assert (writer.best_encoding, writer.best_reward, writer.best_fidelity) == (B, 0.5, 9)

    def test_is_the_best_of_them(self, tmp_path: Path) -> None:
        """At one fidelity the reward decides."""
        writer = written(tmp_path, evaluated((A, 9, 0.4), (B, 9, 0.5)), evaluated((C, 9, 0.45)))
        assert (writer.best_encoding, writer.best_reward) == (B, 0.5)

    def test_failures_at_a_high_fidelity_are_not(self, tmp_path: Path) -> None:
        """A failed query surpasses nothing."""
        writer = written(tmp_path, evaluated((A, 1, 0.2)), evaluated((B, 9, -1.0), status="diverged"))
        assert writer.best_encoding == A

    def test_without_chosen_fidelities_the_reward_decides(self, tmp_path: Path) -> None:
        """Agents that leave the fidelity to the environment are compared as ever."""
        writer = written(tmp_path, evaluated((A, None, 0.2), (B, None, 0.9), (C, None, 0.3)))
        assert (writer.best_encoding, writer.best_fidelity) == (B, None)

    def test_column_of_the_best_follows(self, tmp_path: Path) -> None:
        """The rows hold the best at the highest fidelity until then."""
        written(tmp_path, evaluated((A, 1, 0.9), (B, 9, 0.5), (C, 1, 0.95)))
        rows = RunDirectory(tmp_path).rows()
        assert [row["best_reward"] for row in rows] == [0.9, 0.5, 0.5]


class TestRows:
    """What the record says."""

    def test_name_the_fidelity(self, tmp_path: Path) -> None:
        """Each row has the fidelity that the agent asked for."""
        written(tmp_path, evaluated((A, 1, 0.9), (B, 9, 0.5)))
        assert [row["fidelity"] for row in RunDirectory(tmp_path).rows()] == [1, 9]

    def test_have_no_such_column_otherwise(self, tmp_path: Path) -> None:
        """Where the agent chose nothing, nothing is recorded."""
        written(tmp_path, evaluated((A, None, 0.9)))
        assert "fidelity" not in RunDirectory(tmp_path).rows()[0]

    def test_another_fidelity_is_another_course(self, tmp_path: Path) -> None:
        """A resumed search that asks for the same architecture at another fidelity is refused."""
        written(tmp_path, evaluated((A, 1, 0.9)))
        before = RunDirectory(tmp_path).rows()
        with pytest.raises(ResumeError, match="has fidelity 3, the record 1"):
            written(tmp_path, evaluated((A, 3, 0.9)), before=before)


class TestCurves:
    """The figure of a search."""

    def test_only_comparable_rewards_are_drawn(self, tmp_path: Path) -> None:
        """Rewards at lower fidelities than the best one's are left out."""
        writer = written(tmp_path, evaluated((A, 1, 0.9), (B, 9, 0.5), (C, 3, 0.8), (A, 9, 0.6)))
        np.testing.assert_equal(writer.comparable_rewards, [np.nan, 0.5, np.nan, 0.6])

    def test_without_any_success_all_are(self, tmp_path: Path) -> None:
        """Where nothing succeeded there is no best to compare with."""
        writer = written(tmp_path, evaluated((A, 1, -1.0), (B, 3, -1.0), status="diverged"))
        np.testing.assert_equal(writer.comparable_rewards, [-1.0, -1.0])

    def test_best_so_far_passes_over_the_others(self) -> None:
        """A query that cannot be compared changes nothing."""
        np.testing.assert_equal(best_so_far(np.array([np.nan, 0.5, np.nan, 0.6])), [np.nan, 0.5, 0.5, 0.6])


class TestFurtherTraining:
    """Which architectures of a run are trained on."""

    def test_higher_fidelities_come_first(self) -> None:
        """The best at the highest fidelity, then those that were only seen at lower ones."""
        rows = [
            {"status": "ok", "encoding": list(encoding), "reward": reward, "fidelity": fidelity}
            for encoding, fidelity, reward in [(A, 1, 0.9), (B, 1, 0.8), (C, 1, 0.7), (C, 9, 0.4), (B, 9, 0.5)]
        ]
        assert best_rows(rows, SPACE, 3) == [(B, 0.5), (C, 0.4), (A, 0.9)]


@pytest.mark.parametrize("settings", [["batch_size=1"], ["batch_size=7", "variant=asynchronous"]], ids=["one", "seven"])
def test_resumed_search_takes_the_same_course(settings: list[str], small_table: Path, tmp_path: Path) -> None:
    """Cut anywhere, a search over fidelities goes on to the same record and the same summary."""
    arguments = ["--env", "NAS-Cell-v0", "--env-arg", f"table={small_table}", "--env-arg", "noise=sample"]
    arguments += ["--agent", "successive_halving", "--agent-arg", "eta=2", "--budget", "40"]
    arguments += [word for setting in settings for word in ("--agent-arg", setting)]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for path in (whole, torn):
        subprocess.run([*COMMAND, *arguments, "--out", path], check=True, capture_output=True, timeout=240)
    record = torn / "evaluations.jsonl"
    record.write_bytes(record.read_bytes()[: record.stat().st_size * 3 // 5])
    (torn / "summary.json").unlink()
    subprocess.run([*COMMAND, "--resume", torn], check=True, capture_output=True, timeout=240)
    courses = [
        [(row["encoding"], row["fidelity"], row["reward"], row["best_reward"]) for row in RunDirectory(path).rows()]
        for path in (whole, torn)
    ]
    best = [json.loads((path / "summary.json").read_text())["best"] for path in (whole, torn)]
    assert courses[0] == courses[1]
    assert best[0] == best[1]
    assert best[0]["fidelity"] == 4
