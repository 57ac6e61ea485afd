"""EAS beside random morphisms: what is searched, recorded and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from nas_benchmarks import morphing
from nas_benchmarks.morphing import LEARNT, RANDOM, markdown, paired, record, search
from nas_benchmarks.records import read_rows
from nas_gym.errors import InvalidArgument

quick: dict[str, Any] = {"workers": 0, "subset": 200, "epochs": 1, "start_epochs": 1, "wider": 1, "deeper": 1}


def row(agent: str, seed: int, accuracy: float) -> dict[str, Any]:
    """Return a row of a record."""
    measures = dict.fromkeys(morphing.MEASURES, accuracy)
    return {
        "agent": agent,
        "seed": seed,
        "budget": 20,
        "unique_architectures": 7,
        "dataset": "digits",
        "training": "epochs=3",
        "failed": 0,
        **measures,
    }


def test_a_search_is_recorded_with_what_it_found(tmp_path: Path, one_thread: None) -> None:
    """The accuracy of its best child is what the evaluator says of that network."""
    store = str(tmp_path / "store.sqlite")
    found = search(LEARNT, 0, 12, store=store, **quick)
    again = search(LEARNT, 0, 12, store=store, **quick)
    assert {**found, "simulated_seconds": 0} == {**again, "simulated_seconds": 0}
    assert (found["agent"], found["budget"], found["failed"]) == (LEARNT, 12, 0)
    assert found["training"] == "epochs=1 start_epochs=1"
    assert 0 < found["last_accuracy"] <= found["best_valid_accuracy"] < 1
    assert 0 < found["test_accuracy"] < 1
    assert 0 < found["unique_architectures"] <= 12

    import gymnasium

    env: Any = gymnasium.make(morphing.ENV, store=store, **quick).unwrapped
    answer = env.evaluator.evaluate_one(env.space.from_string(found["best"]))
    env.close()
    assert answer.metrics["valid_accuracy"] == pytest.approx(found["best_valid_accuracy"], abs=1e-9)


def test_a_second_call_searches_what_is_missing_only(tmp_path: Path, one_thread: None) -> None:
    """By agent and seed; another training is another search."""
    path = tmp_path / "record.jsonl"
    assert [(one["agent"], one["seed"]) for one in record(path, 1, 3, **quick)] == [(LEARNT, 0), (RANDOM, 0)]
    assert [(one["agent"], one["seed"]) for one in record(path, 2, 3, **quick)] == [(LEARNT, 1), (RANDOM, 1)]
    other = {**quick, "start_epochs": 2}
    assert [(one["agent"], one["seed"]) for one in record(path, 1, 3, **other)] == [(LEARNT, 0), (RANDOM, 0)]
    assert len(read_rows(path)) == 6


def test_a_search_without_a_trained_child_is_an_error(one_thread: None) -> None:
    """It says what became of the children."""
    with pytest.raises(InvalidArgument, match=r"none of the 3 children .* over_limit"):
        search(RANDOM, 0, 3, max_parameters=10, **quick)


def test_seeds_are_paired() -> None:
    """One that only one of them has is left out."""
    rows = [row(LEARNT, 1, 0.9), row(RANDOM, 0, 0.5), row(RANDOM, 1, 0.8), row(LEARNT, 2, 0.7)]
    first, second = paired(rows, "test_accuracy")
    assert (first.tolist(), second.tolist()) == ([0.9], [0.8])


def test_the_difference_has_an_interval_of_its_own() -> None:
    """Seeds differ by 0.4, the pairs always by 0.01, so the difference is certain."""
    rows = [
        row(agent, seed, 0.5 + 0.1 * seed + (0.01 if agent == LEARNT else 0.0))
        for seed in range(5)
        for agent in (LEARNT, RANDOM)
    ]
    line = next(one for one in markdown(rows).splitlines() if "best validation" in one)
    assert "| +0.0100 [+0.0100, +0.0100] |" in line
    assert "| 0.7100 [0." in line
    assert "5 seeds" in markdown(rows)
    assert "Training: epochs=3." in markdown(rows)


def test_the_command_shows_without_searching(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the record holds, and puts it into a file."""
    import json

    path, page = tmp_path / "record.jsonl", tmp_path / "page.md"
    rows = [row(agent, seed, 0.9) for seed in range(2) for agent in (LEARNT, RANDOM)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    page.write_text("<!-- morphing:begin --><!-- morphing:end -->")
    morphing.main(["--show", "--update", str(page), "--record", str(path)])
    out = capsys.readouterr().out
    assert "| `digits` | 20 | best validation accuracy | 0.9000" in out
    assert out.strip() in page.read_text()
    assert len(read_rows(path)) == 4
