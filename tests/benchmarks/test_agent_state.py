"""What an agent has learnt as a file: nested values round trip, and finished searches leave it behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_benchmarks.agent_state import FILE, read_state, write_state
from nas_benchmarks.records import WriteFailed
from nas_gym import cli
from nas_gym.cli.search import Interruption
from nas_gym.errors import ResumeError

SEED, BUDGET = 3, 60
SEARCH = ("--env", "NAS-MetaQNN-v0", "--env-arg", "evaluator=synthetic", "--env-arg", "max_depth=3", "--seed", SEED)


def search(*arguments: object) -> int:
    """Run a search in this process and return the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nas-gym", "search", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def make_agent(name: str = "q_learning", num_envs: int = 8, **config: Any) -> tuple[Any, Any]:
    """Return the environments of `SEARCH` and an agent for them."""
    envs = gymnasium.make_vec(
        "NAS-MetaQNN-v0", num_envs=num_envs, evaluator="synthetic", max_depth=3, autoreset_mode="Disabled"
    ).unwrapped
    return envs, nas_agents.make(name, envs, SEED, **config)


def through_file(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Write a state and return what is read again."""
    write_state(path, state)
    return read_state(path)


# --- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="none"),
        pytest.param(True, id="bool"),
        pytest.param(2**70, id="large int"),
        pytest.param(0.1, id="float"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param("\u00fc, [b]", id="text"),
        pytest.param([], id="empty list"),
        pytest.param((), id="empty tuple"),
        pytest.param({}, id="empty mapping"),
        pytest.param([1, (2, [3, (4.5,)])], id="tuples and lists"),
        pytest.param({1: "one", (2, 3): "pair", None: False, "1": "text"}, id="keys that are no text"),
        pytest.param({"a": {"b": [{"c": (None, True)}]}}, id="mappings in lists"),
        pytest.param({"array": "a0", "structure": [{"tuple": 1}]}, id="names that the file uses itself"),
    ],
)
def test_plain_values_come_back_as_they_were(tmp_path: Path, value: Any) -> None:
    """Equal, and of the same types at every depth."""
    assert repr(through_file(tmp_path / FILE, {"value": value})["value"]) == repr(value)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(6, dtype=np.int16).reshape(2, 3), id="integers"),
        pytest.param(np.array([0.1, np.nan, np.inf], np.float32), id="floats"),
        pytest.param(np.array([True, False]), id="booleans"),
        pytest.param(np.zeros((0, 5)), id="empty"),
        pytest.param(np.array(7, np.uint8), id="without axes"),
        pytest.param(np.arange(12).reshape(3, 4)[:, ::2], id="view"),
    ],
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: np.ndarray) -> None:
    """In value, type and shape, wherever they lie."""
    found = through_file(tmp_path / FILE, {"deep": [{"array": (array,)}]})["deep"][0]["array"][0]
    np.testing.assert_array_equal(found, array, strict=True)


def test_several_arrays_keep_their_places(tmp_path: Path) -> None:
    """More than ten, so that their order is not that of their names as text."""
    found = through_file(tmp_path / FILE, {number: np.full(2, number) for number in range(12)})
    assert {name: array.tolist() for name, array in found.items()} == {number: [number] * 2 for number in range(12)}


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True)],
    ids=["int", "float", "bool"],
)
def test_scalars_of_numpy_become_plain_numbers(tmp_path: Path, scalar: Any, plain: object) -> None:
    """Of Python's own types."""
    found = through_file(tmp_path / FILE, {"value": scalar})["value"]
    assert (found, type(found)) == (plain, type(plain))


def test_a_scalar_of_numpy_may_be_a_key(tmp_path: Path) -> None:
    """It comes back as the number that it equals."""
    assert through_file(tmp_path / FILE, {np.int64(3): "three"}) == {3: "three"}


def test_tensors_come_back_as_tensors(tmp_path: Path) -> None:
    """Of the same type and shape, without their gradients."""
    torch = pytest.importorskip("torch")
    weight = torch.arange(4.0).reshape(2, 2).requires_grad_()
    found = through_file(tmp_path / FILE, {"weight": weight, "step": torch.tensor(3)})
    kinds = {name: (type(value), value.dtype, value.tolist()) for name, value in found.items()}
    assert kinds == {
        "weight": (torch.Tensor, torch.float32, [[0.0, 1.0], [2.0, 3.0]]),
        "step": (torch.Tensor, torch.int64, 3),
    }


def test_nothing_is_pickled(tmp_path: Path) -> None:
    """Everybody can open the file without trusting it."""
    write_state(tmp_path / FILE, make_agent()[1].state_dict())
    with np.load(tmp_path / FILE, allow_pickle=False) as file:
        assert json.loads(file["structure"].tobytes())


# --- files -----------------------------------------------------------------------------------------


def test_a_target_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """It names the file and the reason."""
    target = tmp_path / "missing" / FILE
    with pytest.raises(WriteFailed, match=r"missing/agent\.npz: cannot be written: No such file or directory"):
        write_state(target, {"a": 1})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced as a whole or not at all."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_state(tmp_path / FILE, {"a": 1})
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteFailed):
        write_state(tmp_path / FILE, {"a": 2})
    assert read_state(tmp_path / FILE) == {"a": 1}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """It says why there may be none."""
    with pytest.raises(ResumeError, match="no such file; the search was not finished"):
        read_state(tmp_path / FILE)


def test_a_file_without_a_structure_is_damaged(tmp_path: Path) -> None:
    """Arrays alone are no state."""
    np.savez(tmp_path / FILE, a0=np.zeros(2))
    with pytest.raises(ResumeError, match=r"agent\.npz: damaged"):
        read_state(tmp_path / FILE)


@pytest.mark.parametrize(
    "structure",
    [
        pytest.param(b'{"mapping": [', id="breaks off"),
        pytest.param(b'{"array": "a1"}', id="missing array"),
        pytest.param(b'{"list": [], "tuple": []}', id="two kinds"),
        pytest.param(b"\xff\xfe\xfd", id="no text"),
    ],
)
def test_a_file_with_a_wrong_structure_is_damaged(tmp_path: Path, structure: bytes) -> None:
    """Whatever is wrong with it."""
    np.savez(tmp_path / FILE, structure=np.frombuffer(structure, np.uint8), a0=np.zeros(2))
    with pytest.raises(ResumeError, match=r"agent\.npz: damaged"):
        read_state(tmp_path / FILE)


def test_another_file_of_that_name_is_damaged(tmp_path: Path) -> None:
    """It is no archive at all."""
    (tmp_path / FILE).write_text("what was learnt")
    with pytest.raises(ResumeError, match=r"agent\.npz: damaged"):
        read_state(tmp_path / FILE)


# --- agents and searches ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished search by Q-learning."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert search(*SEARCH, "--agent", "q_learning", "--budget", BUDGET, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def same() -> Any:
    """Return an agent that has searched as that search did, in this process."""
    envs, agent = make_agent()
    nas_agents.run(agent, envs, BUDGET, SEED)
    return agent


def plain(table: dict[tuple[int, ...], np.ndarray]) -> dict[tuple[int, ...], list[float]]:
    """Return a table that can be compared."""
    return {state: values.tolist() for state, values in table.items()}


def test_a_finished_search_leaves_what_its_agent_has_learnt(finished: Path, same: Any) -> None:
    """A new agent that loads it has the same table."""
    _, agent = make_agent()
    agent.load_state_dict(read_state(finished / FILE))
    assert plain(agent.table) == plain(same.table)


def test_a_loaded_agent_goes_on_as_the_first_would_have(finished: Path, same: Any) -> None:
    """Random numbers, memory and counts are there, too."""
    tables = []
    for state in (read_state(finished / FILE), same.state_dict()):
        envs, agent = make_agent()
        agent.load_state_dict(state)
        nas_agents.run(agent, envs, 24, SEED + 1)
        tables.append(plain(agent.table))
    assert tables[0] == tables[1]


@pytest.mark.parametrize("agent", ["evolution", "random_search"])
def test_the_searches_of_all_agents_leave_it(tmp_path: Path, agent: str) -> None:
    """Also where it holds no values."""
    search(*SEARCH, "--agent", agent, "--budget", 5, "--out", tmp_path / "run")
    assert "rng" in read_state(tmp_path / "run" / FILE)


def test_a_controller_survives_the_file(tmp_path: Path) -> None:
    """Its weights are the same to the last bit after a round trip into another controller."""
    torch = pytest.importorskip("torch")
    envs, agent = make_agent("reinforce", 4, batch_size=4)
    nas_agents.run(agent, envs, 8, SEED)
    _, other = make_agent("reinforce", 4, batch_size=4)
    other.load_state_dict(through_file(tmp_path / FILE, agent.state_dict()))
    pairs = zip(agent.controller.parameters(), other.controller.parameters(), strict=True)
    assert all(torch.equal(mine, its) for mine, its in pairs)


def test_an_interrupted_search_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may have come in the middle of learning."""
    monkeypatch.setattr(Interruption, "wants_stop", True)
    code = search(*SEARCH, "--agent", "q_learning", "--budget", BUDGET, "--out", tmp_path / "run")
    assert (code, (tmp_path / "run" / FILE).exists()) == (130, False)


def test_a_resumed_search_leaves_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """What was recorded is learnt again first."""
    cell = ("--env", "NAS-Cell-v0", "--env-arg", "evaluator=synthetic", "--agent", "q_learning", "--seed", SEED)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    search(*cell, "--budget", 40, "--out", whole)
    resumed.mkdir()
    (resumed / "config.json").write_bytes((whole / "config.json").read_bytes())
    lines = (whole / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (resumed / "evaluations.jsonl").write_text("".join(lines[:20]))
    search("--resume", resumed)
    expected, found = (read_state(run / FILE)["values"].tolist() for run in (whole, resumed))
    assert found == expected
