"""`NAS-Cell-v0`: its documented spaces, arguments and errors; and the documentation of every environment."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from nas_gym import ENVIRONMENTS
from nas_gym.envs.cell import CellEnv, CellVectorEnv
from nas_gym.errors import FidelityError, InvalidArgument, TableError, UnknownName
from nas_gym.registry import resolve
from nas_gym.tables.format import read_table

SECTIONS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "Registered Environments",
    "References",
    "Version History",
]

ALL_CONV = (3, 3, 3, 3, 3, 3)
ALL_CONV_STRING = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"

every_class = pytest.mark.parametrize("make", [CellEnv, CellVectorEnv], ids=["single", "vector"])
every_id = pytest.mark.parametrize("name", list(ENVIRONMENTS))


def build(env: CellEnv, encoding: tuple[int, ...] = ALL_CONV, **reset: Any) -> tuple[Any, float, dict[str, Any]]:
    """Build one cell and return the last observation, the reward and the final info."""
    env.reset(**reset)
    for action in encoding:
        observation, reward, _, _, info = env.step(action)
    return observation, reward, info


class TestSpaces:
    """The documented spaces and notation."""

    def test_actions_are_the_five_operations(self) -> None:
        """`Discrete(5)`."""
        assert CellEnv(evaluator="synthetic").action_space == spaces.Discrete(5)

    @pytest.mark.parametrize("observation", ["prefix", "states"])
    def test_observations_are_six_edges(self, observation: str) -> None:
        """`MultiDiscrete([6] * 6)`."""
        env = CellEnv(evaluator="synthetic", observation=observation)
        assert env.observation_space == spaces.MultiDiscrete([6] * 6)

    def test_one_hot_is_a_flat_box(self) -> None:
        """`Box(0, 1, (36,), float32)`."""
        env = CellEnv(evaluator="synthetic", observation="one_hot")
        assert env.observation_space == spaces.Box(0.0, 1.0, (36,), np.float32)

    def test_one_hot_has_the_content_of_the_prefix(self) -> None:
        """After every step, the ones stand at the values of the prefix."""
        plain, hot = CellEnv(evaluator="synthetic"), CellEnv(evaluator="synthetic", observation="one_hot")
        seen = [(plain.reset()[0], hot.reset()[0])]
        seen += [(plain.step(action)[0], hot.step(action)[0]) for action in (4, 3, 2, 1, 0, 4)]
        assert [np.flatnonzero(row).tolist() for _, row in seen] == [
            (prefix + np.arange(0, 36, 6)).tolist() for prefix, _ in seen
        ]

    def test_the_cell_of_convolutions_has_its_official_string(self) -> None:
        """Six times action 3 is the all-convolution cell."""
        env = CellEnv(evaluator="synthetic")
        *_, info = build(env)
        assert env.space.to_string(info["encoding"]) == ALL_CONV_STRING


class TestTable:
    """Rewards, costs and metrics come from the table."""

    def test_the_reward_is_the_mean_over_the_seeds(self, small_table: Path) -> None:
        """By default the validation accuracy after the last epoch."""
        env = CellEnv(table=str(small_table))
        row = env.space.code(ALL_CONV)
        assert build(env)[1] == read_table(small_table).mean("valid_accuracy")[row]

    @pytest.mark.parametrize("fidelity", [1, 3])
    def test_a_fidelity_is_read_at_that_epoch(self, fidelity: int, small_table: Path) -> None:
        """The argument and the option of `reset` mean the same."""
        row = CellEnv(evaluator="synthetic").space.code(ALL_CONV)
        expected = read_table(small_table).mean("valid_accuracy", fidelity)[row]
        argument = build(CellEnv(table=str(small_table), fidelity=fidelity))[1]
        option = build(CellEnv(table=str(small_table)), options={"fidelity": fidelity})[1]
        assert (argument, option) == (expected, expected)

    def test_a_fidelity_costs_its_share(self, small_table: Path) -> None:
        """One epoch of four costs a quarter of the training."""
        env = CellEnv(table=str(small_table))
        full, quarter = build(env)[2], build(env, options={"fidelity": 1})[2]
        assert quarter["cost_seconds"] == pytest.approx(full["cost_seconds"] / 4)

    def test_sampled_noise_is_one_of_the_seeds(self, small_table: Path) -> None:
        """Repeated and resampled, all seeds of the table occur and nothing else does."""
        env = CellEnv(table=str(small_table), noise="sample", repeat_query="resample+charge")
        rewards = {build(env)[1] for _ in range(40)}
        assert rewards == set(read_table(small_table).per_seed("valid_accuracy")[env.space.code(ALL_CONV)].tolist())

    def test_another_evaluation_seed_draws_other_noise(self, small_table: Path) -> None:
        """The stream of seeds depends on `evaluation_seed`."""
        kwargs: dict[str, Any] = {"table": str(small_table), "noise": "sample", "repeat_query": "resample+charge"}
        streams = []
        for seed in (0, 1):
            env = CellEnv(evaluation_seed=seed, **kwargs)
            streams.append([build(env)[1] for _ in range(20)])
        assert streams[0] != streams[1]

    def test_held_out_metrics_stay_out_of_the_info(self, small_table: Path) -> None:
        """The final info has the search-time metrics and no test accuracy."""
        *_, info = build(CellEnv(table=str(small_table)))
        assert set(info["metrics"]) == {"valid_accuracy", "train_seconds", "parameters"}


class TestExtensions:
    """Parts given as `module:Class`."""

    def test_parts_outside_the_registries_are_imported(self) -> None:
        """Evaluator, objective and observation may be named by their module."""
        env = CellEnv(
            evaluator="nas_gym.evaluators.synthetic:SyntheticEvaluator",
            objective="nas_gym.objectives:AccuracyCubed",
            observation="nas_gym.envs.core.observations:OneHotObservation",
        )
        observation, reward, info = build(env)
        assert (observation.shape, reward) == ((36,), pytest.approx(info["metrics"]["valid_accuracy"] ** 3))


@every_class
class TestBadInput:
    """A wrong argument is answered by what is right."""

    @pytest.mark.parametrize(
        ("argument", "value", "nearest"),
        [
            ("metric", "valid_acuracy", "valid_accuracy"),
            ("objective", "acuracy", "accuracy"),
            ("observation", "onehot", "one_hot"),
            ("evaluator", "syntetic", "synthetic"),
        ],
    )
    def test_unknown_names_get_the_nearest_match(self, make: Any, argument: str, value: str, nearest: str) -> None:
        """The message suggests the name that was meant."""
        with pytest.raises(UnknownName, match=f"Did you mean '{nearest}'"):
            make(**{"evaluator": "synthetic", argument: value})

    def test_unknown_tables_get_the_nearest_match(
        self,
        make: Any,
        small_table: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Tables that the user installed are suggested too."""
        (tmp_path / "tables").mkdir()
        shutil.copy(small_table, tmp_path / "tables" / "my_own_cells.parquet")
        monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
        with pytest.raises(UnknownName, match="Did you mean 'my_own_cells'"):
            make(table="my_own_cell")

    def test_missing_table_files_are_named(self, make: Any, tmp_path: Path) -> None:
        """A path that does not exist is an error of the table."""
        with pytest.raises(TableError, match=r"absent\.parquet"):
            make(table=str(tmp_path / "absent.parquet"))

    def test_held_out_metrics_are_refused(self, make: Any, small_table: Path) -> None:
        """The test accuracy is never a reward; the message names what is allowed."""
        with pytest.raises(InvalidArgument, match=r"'test_accuracy' is held out.*valid_accuracy"):
            make(table=str(small_table), metric="test_accuracy")

    def test_metrics_that_are_no_accuracy_are_refused(self, make: Any, small_table: Path) -> None:
        """The objective needs a fraction to maximize."""
        with pytest.raises(InvalidArgument, match="needs a fraction"):
            make(table=str(small_table), metric="parameters")

    @pytest.mark.parametrize(
        ("evaluator", "setting", "value"),
        [("synthetic", "table", "digits"), ("synthetic", "noise", "mean"), ("synthetic", "dataset", "digits")],
    )
    def test_settings_of_another_evaluator_are_refused(
        self,
        make: Any,
        evaluator: str,
        setting: str,
        value: str,
    ) -> None:
        """An argument without effect is an error, and the message lists those that have one."""
        with pytest.raises(InvalidArgument, match=rf"takes no argument '{setting}'.*evaluation_seed"):
            make(evaluator=evaluator, **{setting: value})

    def test_a_table_takes_no_data_set(self, make: Any, small_table: Path) -> None:
        """`dataset` belongs to training."""
        with pytest.raises(InvalidArgument, match="takes no argument 'dataset'"):
            make(table=str(small_table), dataset="digits")

    def test_unknown_noise_is_refused(self, make: Any, small_table: Path) -> None:
        """Allowed are mean and sample."""
        with pytest.raises(InvalidArgument, match="mean, sample"):
            make(table=str(small_table), noise="median")

    @pytest.mark.parametrize("fidelity", [0, 5])
    def test_fidelities_outside_the_table_are_refused(self, make: Any, fidelity: int, small_table: Path) -> None:
        """The message names the range."""
        with pytest.raises(FidelityError, match="1 to 4"):
            make(table=str(small_table), fidelity=fidelity)

    def test_a_fidelity_without_meaning_is_refused(self, make: Any) -> None:
        """The synthetic evaluator has none."""
        with pytest.raises(FidelityError, match="has no fidelities"):
            make(evaluator="synthetic", fidelity=2)

    @pytest.mark.parametrize("render_mode", ["depth_array", "text"])
    def test_unsupported_render_modes_are_refused(self, make: Any, render_mode: str) -> None:
        """The message names the modes that exist."""
        with pytest.raises(InvalidArgument, match="ansi, rgb_array"):
            make(evaluator="synthetic", render_mode=render_mode)


class TestRendering:
    """Text and picture of the cell so far."""

    def test_text_shows_decided_and_open_edges(self) -> None:
        """One line a node; undecided edges are question marks."""
        env = CellEnv(evaluator="synthetic", render_mode="ansi")
        env.reset()
        env.step(3)
        lines = env.render().splitlines()
        assert lines[1].split() == ["1", "=", "[nor_conv_3x3(input)]"]
        assert lines[3].split() == ["output", "=", "?(input)", "+", "?(1)", "+", "?(2)"]

    def test_the_picture_changes_with_every_decision(self) -> None:
        """`rgb_array` gives uint8 images of one size, seven different ones in an episode."""
        pytest.importorskip("pygame")
        env = CellEnv(evaluator="synthetic", render_mode="rgb_array")
        env.reset()
        frames = [env.render()]
        for action in (0, 1, 2, 3, 4, 2):
            env.step(action)
            frames.append(env.render())
        assert {(frame.dtype, frame.ndim, frame.shape[2]) for frame in frames} == {(np.dtype(np.uint8), 3, 3)}
        assert len({frame.tobytes() for frame in frames}) == 7

    def test_nothing_is_rendered_without_a_mode(self) -> None:
        """`render` returns None."""
        env = CellEnv(evaluator="synthetic")
        env.reset()
        assert env.render() is None


class TestDocumentation:
    """The docstring of an environment is its documentation page."""

    @every_id
    def test_the_sections_have_a_fixed_order(self, name: str) -> None:
        """All eleven, in the order of every other page."""
        documentation = inspect.getdoc(resolve(ENVIRONMENTS[name].entry_point)) or ""
        assert re.findall(r"^## (.+)$", documentation, re.MULTILINE) == SECTIONS

    @every_id
    def test_every_argument_is_in_the_table(self, name: str) -> None:
        """The section Arguments has a row for every parameter of the constructor, with its default."""
        entry = resolve(ENVIRONMENTS[name].entry_point)
        page = (inspect.getdoc(entry) or "").partition("## Arguments")[2].partition("## Registered")[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", page, re.MULTILINE))
        parameters = inspect.signature(entry).parameters.values()
        named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        collects_others = len(named) < len(parameters)
        expected = {
            parameter.name: f'"{parameter.default}"' if isinstance(parameter.default, str) else str(parameter.default)
            for parameter in named
        }
        found = {key: value for key, value in rows.items() if key in expected or not collects_others}
        assert found == expected

    @every_id
    def test_the_id_is_listed(self, name: str) -> None:
        """The section Registered Environments names every id of the class."""
        documentation = inspect.getdoc(resolve(ENVIRONMENTS[name].entry_point)) or ""
        assert f"`{name}`" in documentation.partition("## Registered Environments")[2].partition("## References")[0]

    @every_id
    def test_the_current_version_has_a_history(self, name: str) -> None:
        """The section Version History mentions the version in the id."""
        documentation = inspect.getdoc(resolve(ENVIRONMENTS[name].entry_point)) or ""
        version = gymnasium.spec(name).version
        assert f"- v{version}:" in documentation.partition("## Version History")[2]
