"""What is written down about finished episodes, in the info and in a file."""

from __future__ import annotations

import copy
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from hypothesis import given
from wrappers.lockstep import (
    Plan,
    assert_equals_singles,
    assert_spec_rebuilds,
    check_quietly,
    every_id,
    every_mode,
    make,
    make_vec,
    plans,
    play,
    properties,
    small_single,
    small_space,
    small_vector,
)

from nas_gym.errors import BudgetExhausted, InvalidArgument, NASGymError, RunExists
from nas_gym.wrappers import (
    DeltaReward,
    EpisodeRecorder,
    PenaliseMasked,
    RunRecorder,
    VectorEpisodeRecorder,
    VectorPenaliseMasked,
    VectorRunRecorder,
    record,
)
from nas_gym.wrappers.record import RecordFailed

SOFTMAX, CONV, POOL = 19, 0, 14
"""Actions of `NAS-MetaQNN-v0`; pooling is masked at the start."""


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; every line must be complete."""
    content = path.read_text(encoding="utf-8")
    assert not content or content.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in content.splitlines()]


def episode(env: Any, *actions: int) -> Any:
    """Play an episode; return its last result."""
    env.reset()
    return [env.step(action) for action in actions][-1]


def without_seconds(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a result whose durations are all the same."""
    info = copy.deepcopy(result[-1])
    for part in (info, info.get("final_info", {})):
        if "episode" in part:
            part["episode"]["t"] = np.zeros_like(part["episode"]["t"])
    return (*result[:-1], info)


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@contextmanager
def full_disk(path: Path, room: int) -> Iterator[None]:
    """Let no file of this process grow further than `room` bytes beyond the present size of `path`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestEpisodeRecorder:
    """`EpisodeRecorder` and its vector form."""

    @properties
    @given(plan=plans())
    def test_the_vector_form_equals_single_forms(self, plan: Plan) -> None:
        """Everything but the seconds agrees, over random streams with masked actions and partial resets."""
        assert_equals_singles(plan, VectorEpisodeRecorder, EpisodeRecorder, cleaned=without_seconds)

    @properties
    @given(plan=plans())
    def test_it_records_episodes_without_a_query(self, plan: Plan) -> None:
        """Truncated by masked actions, they have a return, a length and no notation."""
        assert_equals_singles(
            plan,
            lambda envs: VectorEpisodeRecorder(VectorPenaliseMasked(envs, limit=2)),
            lambda env: EpisodeRecorder(PenaliseMasked(env, limit=2)),
            cleaned=without_seconds,
        )

    def test_it_tells_what_gymnasiums_wrapper_tells(self) -> None:
        """Return and length are those of `RecordEpisodeStatistics`."""
        mine, theirs = EpisodeRecorder(make()), RecordEpisodeStatistics(make())
        found = [episode(env, CONV, CONV, SOFTMAX)[-1]["episode"] for env in (mine, theirs)]
        assert [(one["r"], one["l"]) for one in found[:1]] == [(one["r"], one["l"]) for one in found[1:]]

    def test_it_tells_the_notation(self) -> None:
        """The published notation of the architecture is part of the entry."""
        info = episode(EpisodeRecorder(make()), 7, POOL, 16, SOFTMAX)[-1]
        assert info["episode"]["notation"] == "C(64,3,1) P(2,2) FC(32) SM"

    def test_an_incomplete_architecture_has_no_notation(self) -> None:
        """A masked action ends the episode before there is one."""
        assert episode(EpisodeRecorder(make()), POOL)[-1]["episode"]["notation"] == ""

    def test_only_last_steps_have_an_entry(self) -> None:
        """Steps before the end have none."""
        assert "episode" not in episode(EpisodeRecorder(make()), CONV)[-1]

    def test_it_keeps_the_last_episodes(self) -> None:
        """The queues hold `buffer_length` of them, the counter counts all."""
        env = EpisodeRecorder(make(), buffer_length=2)
        values = [episode(env, *actions)[1] for actions in ((SOFTMAX,), (CONV, SOFTMAX), (POOL,))]
        assert (env.episode_count, list(env.return_queue), list(env.length_queue)) == (3, values[1:], [2, 1])

    @every_mode
    def test_a_vector_counts_every_episode_once(self, mode: AutoresetMode) -> None:
        """Rows that rest after their end, in the mode "Disabled", end once."""
        envs = VectorEpisodeRecorder(make_vec(2, mode))
        envs.reset()
        for _ in range(3):
            envs.step(np.array([SOFTMAX, CONV]))
        counts = {AutoresetMode.NEXT_STEP: 2, AutoresetMode.SAME_STEP: 3, AutoresetMode.DISABLED: 1}
        assert (envs.episode_count, list(envs.length_queue)) == (counts[mode], [1] * counts[mode])

    def test_what_a_partial_first_reset_leaves_out_is_no_episode(self) -> None:
        """Rows that rest until they are begun end nothing."""
        envs = VectorEpisodeRecorder(make_vec(2, "Disabled"))
        envs.reset(options={"reset_mask": np.array([True, False])})
        info = envs.step(np.array([SOFTMAX, SOFTMAX]))[-1]
        assert (envs.episode_count, info["_episode"].tolist()) == (1, [True, False])

    @every_mode
    def test_seconds_are_those_of_the_episode(self, mode: AutoresetMode, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a clock that advances by one a step, they equal the length."""
        clock = Clock()
        monkeypatch.setattr(record, "time", clock)
        envs = VectorEpisodeRecorder(make_vec(2, mode))
        envs.reset()
        for number in range(12):
            clock.now += 1
            *_, terminated, _, _ = envs.step(np.array([SOFTMAX if number % 4 == 3 else CONV, SOFTMAX]))
            if mode is AutoresetMode.DISABLED and terminated.all():
                clock.now += 100
                envs.reset(options={"reset_mask": terminated})
        assert list(envs.time_queue) == list(envs.length_queue)
        assert {1, 4} <= set(envs.length_queue)

    def test_seconds_of_a_single_episode_begin_with_its_reset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What passes between episodes does not count."""
        clock = Clock()
        monkeypatch.setattr(record, "time", clock)
        env = EpisodeRecorder(make())
        clock.now += 100
        env.reset()
        clock.now += 3
        assert env.step(SOFTMAX)[-1]["episode"]["t"] == 3

    def test_a_key_that_is_taken_raises(self) -> None:
        """Two recorders need two keys."""
        env = EpisodeRecorder(EpisodeRecorder(make()))
        with pytest.raises(InvalidArgument, match="'episode' is in the info already"):
            episode(env, SOFTMAX)

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
    def test_a_key_that_is_taken_raises_in_vectors_too(self, mode: str) -> None:
        """Also where the last info lies inside another."""
        envs = VectorEpisodeRecorder(VectorEpisodeRecorder(make_vec(1, mode)))
        envs.reset()
        with pytest.raises(InvalidArgument, match="'episode' is in the info already"):
            envs.step(np.array([SOFTMAX]))

    @pytest.mark.parametrize(
        ("wrap", "build"), [(EpisodeRecorder, make), (VectorEpisodeRecorder, make_vec)], ids=["single", "vector"]
    )
    @pytest.mark.parametrize("arguments", [{"buffer_length": 0}, {"buffer_length": 1.5}, {"stats_key": ""}])
    def test_arguments_are_checked(
        self, wrap: Callable[..., Any], build: Callable[[], Any], arguments: dict[str, Any]
    ) -> None:
        """The message names the argument."""
        with pytest.raises(InvalidArgument, match=next(iter(arguments))):
            wrap(build(), **arguments)


class TestRunRecorder:
    """`RunRecorder` and its vector form."""

    @properties
    @given(plan=plans())
    def test_the_vector_form_writes_what_single_forms_write(
        self, plan: Plan, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """The rows of a step come in order; only the steps are those of the whole environment."""
        folder = tmp_path_factory.mktemp("runs")
        vector = VectorRunRecorder(VectorPenaliseMasked(small_vector(plan.num_envs, plan.mode), limit=2), folder / "v")
        reference = SyncVectorEnv(
            [lambda: RunRecorder(PenaliseMasked(small_single(), limit=2), folder / "s", append=True)] * plan.num_envs,
            autoreset_mode=plan.mode,
        )
        for _ in play(plan, vector, reference):
            pass
        mine, theirs = lines(folder / "v"), lines(folder / "s")
        for row in (*mine, *theirs):
            del row["environment_steps"]
        assert mine == theirs

    def test_a_line_tells_everything(self, tmp_path: Path) -> None:
        """All keys have the values of the last info."""
        env = RunRecorder(make(), tmp_path / "run.jsonl")
        _, reward, _, _, info = episode(env, CONV, SOFTMAX)
        assert lines(tmp_path / "run.jsonl") == [
            {
                "encoding": [CONV, SOFTMAX],
                "notation": "C(8,1,1) SM",
                "status": "ok",
                "reward": reward,
                "metrics": info["metrics"],
                "cost_seconds": info["cost_seconds"],
                "length": 2,
                "environment_steps": 2,
            }
        ]

    def test_a_failure_has_neither_notation_nor_numbers(self, tmp_path: Path) -> None:
        """NaN, which JSON lacks, is null."""
        env = RunRecorder(make(), tmp_path / "run.jsonl")
        episode(env, POOL)
        (row,) = lines(tmp_path / "run.jsonl")
        assert (row["notation"], row["status"], set(row["metrics"].values())) == (None, "invalid_action", {None})

    def test_an_episode_without_a_query_is_truncated(self, tmp_path: Path) -> None:
        """Its line has no encoding, and its length counts the masked actions."""
        env = RunRecorder(PenaliseMasked(make(), limit=2), tmp_path / "run.jsonl")
        episode(env, CONV, *[POOL + 1] * 2)
        (row,) = lines(tmp_path / "run.jsonl")
        assert (row["encoding"], row["status"], row["length"], row["environment_steps"]) == (None, "truncated", 3, 1)

    def test_the_reward_is_that_below_the_wrapper(self, tmp_path: Path) -> None:
        """A reward wrapper around it changes nothing, one below it does."""
        for wrap, expected in ((lambda env: DeltaReward(env), True), (lambda env: env, False)):
            path = tmp_path / f"{expected}.jsonl"
            env = RunRecorder(wrap(make()), path)
            for _ in range(2):
                episode(env, SOFTMAX)
            assert (lines(path)[1]["reward"] == 0) is expected

    def test_held_out_metrics_are_never_written(self, tmp_path: Path, small_table: Path) -> None:
        """The table has a test accuracy, the record has none."""
        env = RunRecorder(gymnasium.make("NAS-Cell-v0", table=str(small_table)), tmp_path / "run.jsonl")
        episode(env, 0, 1, 2, 3, 4, 0)
        assert "test_accuracy" not in (tmp_path / "run.jsonl").read_text()

    def test_a_line_is_there_when_the_step_returns(self, tmp_path: Path) -> None:
        """Nothing waits in a buffer, and no file stays open."""
        env = RunRecorder(make(), tmp_path / "run.jsonl")
        counts = []
        for _ in range(3):
            episode(env, SOFTMAX)
            counts.append(len(lines(tmp_path / "run.jsonl")))
        assert counts == [1, 2, 3]
        assert not any(os.path.samefile(tmp_path / "run.jsonl", f"/proc/self/fd/{one}") for one in open_files())

    def test_abandoned_episodes_are_not_recorded(self, tmp_path: Path) -> None:
        """A reset in the middle of an episode writes nothing."""
        env = RunRecorder(make(), tmp_path / "run.jsonl")
        episode(env, CONV)
        episode(env, SOFTMAX)
        assert [row["length"] for row in lines(tmp_path / "run.jsonl")] == [1]

    @every_mode
    def test_a_vector_writes_every_episode_once(self, mode: AutoresetMode, tmp_path: Path) -> None:
        """There are as many lines as queries were charged, and they hold what the counter says."""
        envs = VectorRunRecorder(make_vec(3, mode), tmp_path / "run.jsonl")
        base: Any = envs.unwrapped
        rng = np.random.default_rng(0)
        envs.reset(seed=0)
        for _ in range(40):
            *_, terminated, _, _ = envs.step(rng.integers(20, size=3))
            if mode is AutoresetMode.DISABLED and rng.random() < 0.5 and terminated.any():
                envs.reset(options={"reset_mask": terminated})
        found = lines(tmp_path / "run.jsonl")
        assert len(found) == base.counter.queries
        assert sum(row["cost_seconds"] for row in found) == pytest.approx(base.counter.simulated_seconds)

    def test_what_a_used_up_budget_paid_for_is_recorded(self, tmp_path: Path) -> None:
        """Of a batch that crosses the budget, the first rows have lines, and the error is passed on."""
        envs = VectorRunRecorder(make_vec(3, "Disabled"), tmp_path / "run.jsonl")
        base: Any = envs.unwrapped
        base.counter.budget = 2
        envs.reset()
        with pytest.raises(BudgetExhausted):
            envs.step(np.array([SOFTMAX, POOL, SOFTMAX]))
        found = lines(tmp_path / "run.jsonl")
        assert [(row["encoding"], row["status"], row["length"]) for row in found] == [
            ([SOFTMAX], "ok", 1),
            ([], "invalid_action", 1),
        ]


def open_files() -> list[str]:
    """Return the numbers of the files that this process has open."""
    return [one for one in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{one}")]


class TestFiles:
    """The file that `RunRecorder` writes."""

    def test_an_existing_file_is_refused(self, tmp_path: Path) -> None:
        """Results are never overwritten."""
        path = tmp_path / "run.jsonl"
        path.write_text("mine\n")
        with pytest.raises(RunExists, match="append=True"):
            RunRecorder(make(), path)
        assert path.read_text() == "mine\n"

    def test_an_existing_file_can_be_added_to(self, tmp_path: Path) -> None:
        """What it holds stays."""
        for append in (False, True):
            episode(RunRecorder(make(), tmp_path / "run.jsonl", append=append), SOFTMAX)
        assert len(lines(tmp_path / "run.jsonl")) == 2

    def test_a_torn_last_line_is_cut_off(self, tmp_path: Path) -> None:
        """A kill may leave half a line, which must not spoil the next one."""
        path = tmp_path / "run.jsonl"
        path.write_text('{"encoding":[1]}\n{"enco')
        episode(RunRecorder(make(), path, append=True), SOFTMAX)
        assert [row["encoding"] for row in lines(path)] == [[1], [SOFTMAX]]

    def test_it_is_created_at_once(self, tmp_path: Path) -> None:
        """A path that cannot be written is found out before the search."""
        RunRecorder(make(), str(tmp_path / "run.jsonl"), append=True)
        assert lines(tmp_path / "run.jsonl") == []

    def test_a_missing_directory_is_a_clear_error(self, tmp_path: Path) -> None:
        """The message names the path and the reason."""
        with pytest.raises(RecordFailed, match=r"nowhere/run.jsonl: cannot be opened.*No such file"):
            RunRecorder(make(), tmp_path / "nowhere" / "run.jsonl")

    @pytest.mark.parametrize("wrap", [RunRecorder, lambda env, path: VectorRunRecorder(make_vec(1), path)])
    def test_a_full_disk_is_a_clear_error(self, wrap: Callable[..., Any], tmp_path: Path) -> None:
        """The lines before are intact, and no half line is left."""
        path = tmp_path / "run.jsonl"
        env = wrap(make(), path)
        action = SOFTMAX if isinstance(env, RunRecorder) else np.array([SOFTMAX])
        env.reset()
        env.step(action)
        before = path.read_bytes()
        env.reset()
        with full_disk(path, room=10), pytest.raises(RecordFailed, match="cannot be written: File too large"):
            env.step(action)
        assert path.read_bytes() == before

    def test_a_file_that_was_removed_is_a_clear_error(self, tmp_path: Path) -> None:
        """It is not silently begun again."""
        env = RunRecorder(make(), tmp_path / "run.jsonl")
        (tmp_path / "run.jsonl").unlink()
        with pytest.raises(RecordFailed, match="cannot be written"):
            episode(env, SOFTMAX)

    @pytest.mark.parametrize("path", ["/dev/full", "/dev"])
    def test_devices_and_directories_are_refused(self, path: str) -> None:
        """Lines are appended to files."""
        with pytest.raises(InvalidArgument, match="no file"):
            RunRecorder(make(), path, append=True)

    @pytest.mark.parametrize("arguments", [{"path": None}, {"path": 3}, {"path": "x", "append": "yes"}])
    def test_arguments_are_checked(self, arguments: dict[str, Any]) -> None:
        """The message names the argument."""
        with pytest.raises(InvalidArgument, match=list(arguments)[-1]):
            RunRecorder(make(), **arguments)

    def test_a_failure_is_one_of_the_project(self) -> None:
        """Catching the base of all errors, or OSError, catches it."""
        assert issubclass(RecordFailed, NASGymError) and issubclass(RecordFailed, OSError)


class TestRest:
    """What holds for both."""

    @every_id
    def test_the_specification_rebuilds_the_stack(self, name: str, tmp_path: Path) -> None:
        """`gymnasium.make(env.spec)` makes the same wrappers, also from JSON; a file must allow it."""
        assert_spec_rebuilds(EpisodeRecorder(RunRecorder(make(name), tmp_path / "run.jsonl", append=True)))

    @every_id
    def test_gymnasium_finds_nothing(self, name: str, tmp_path: Path) -> None:
        """Gymnasium's checker is content."""
        check_quietly(EpisodeRecorder(RunRecorder(make(name), tmp_path / "run.jsonl", append=True)))

    def test_a_duplicate_continues(self, tmp_path: Path) -> None:
        """A copy in the middle of an episode writes to the same file."""
        env = RunRecorder(small_single(), tmp_path / "run.jsonl")
        env.reset()
        env.step(CONV)
        for twin in (env, copy.deepcopy(env)):
            twin.step(SOFTMAX)
        first, second = lines(tmp_path / "run.jsonl")
        assert first == second and small_space().to_string(tuple(first["encoding"])) == first["notation"]
