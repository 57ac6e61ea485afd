"""`nas-gym doctor`: a healthy environment passes, and every fault is named with its mending."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from nas_gym.cli import main

MODULE = "environments_for_the_doctor"

SOURCE = '''
"""A sound environment with masks, and one with a single fault each."""

import itertools

import gymnasium
import numpy as np

from nas_gym.envs.core.construction import ConstructionEnv
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


class Sound(gymnasium.Env):
    """Three choices of three; the choice made last is masked."""

    metadata = {"render_modes": []}

    def __init__(self, size=3, table=None):
        self.size = size
        self.action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = gymnasium.spaces.Box(0, 3, (size,), np.float32)
        self.taken = []

    def mask(self):
        over = len(self.taken) >= self.size
        return np.array([over or action not in self.taken[-1:] for action in range(3)], np.int8)

    def action_masks(self):
        return self.mask().astype(bool)

    def observe(self):
        row = np.zeros(self.size, np.float32)
        row[: len(self.taken)] = np.add(self.taken, 1)
        return row

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = []
        return self.observe(), {"action_mask": self.mask()}

    def reward(self):
        return float(sum(self.taken))

    def masked(self, action):
        return self.observe(), -1.0, True, False, {"action_mask": np.ones(3, np.int8)}

    def step(self, action):
        if not self.mask()[action]:
            return self.masked(action)
        self.taken.append(int(action))
        over = self.over()
        return self.observe(), self.reward() if over else 0.0, over, False, {"action_mask": self.mask()}

    def over(self):
        return len(self.taken) == self.size


class MaskedAtFirst(Sound):
    """The first choice is not 0, and what a masked action measures is NaN, which equals nothing."""

    def mask(self):
        mask = super().mask()
        if not self.taken:
            mask[0] = 0
        return mask

    def masked(self, action):
        observation, *outcome, info = super().masked(action)
        return observation, *outcome, {**info, "metrics": {"accuracy": float("nan")}}


class DeadEnd(Sound):
    def mask(self):
        return super().mask() * np.int8(self.taken[:2] != [0, 1])


class WideMask(Sound):
    def mask(self):
        return np.append(super().mask(), np.int8(0))


class BoolMask(Sound):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation, {"action_mask": info["action_mask"].astype(bool)}


class ForgottenMask(Sound):
    def step(self, action):
        return (*super().step(action)[:4], {})


class OtherMask(Sound):
    def action_masks(self):
        return np.ones(3, bool)


class Raises(Sound):
    def masked(self, action):
        raise ValueError(f"[bold]{action}[/bold] is [/red] masked")


class Drifts(Sound):
    episodes = itertools.count()

    def reward(self):
        return float(next(self.episodes))


class Endless(Sound):
    def over(self):
        self.taken = self.taken[-1:]
        return False


class NotANumber(Sound):
    def reward(self):
        return float("nan")


class BreaksOff(Sound):
    def over(self):
        return 1 / (2 - len(self.taken)) > 5


class TextActions(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Text(3)


class CannotBeMade(Sound):
    def __init__(self):
        raise RuntimeError("no such folder [/]")


class Leaves(Sound):
    def __init__(self):
        raise SystemExit(0)


def make_sound(size=3):
    return Sound(size)


def make_nothing():
    return "nothing"


class Cell(ConstructionEnv):
    def __init__(self):
        space = NASBench201Space()
        super().__init__(space, SyntheticEvaluator(space), Accuracy())


class GreedyCell(Cell):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + 0.5, *rest


CONSTANT = 3
gymnasium.register("Doctored-v0", entry_point=f"{__name__}:Sound")
gymnasium.register("Doctored-Object-v0", entry_point=f"{__name__}:Sound", kwargs={"table": np.zeros(2)})
gymnasium.register("Doctored-Callable-v0", entry_point=Sound)
'''


def doctor(*arguments: object) -> tuple[int, list[str], str]:
    """Run the command in this process; return exit code, lines of output, and errors as one line."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "argv", ["nas-gym", "doctor", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue().splitlines(), " ".join(err.getvalue().split())


def rows(lines: list[str]) -> dict[str, str]:
    """Return the result of every check by its name."""
    found = {}
    for line in lines:
        for result in ("ok", "wrong", "skipped"):
            name, separator, _ = f"{line} ".partition(f"  {result} ")
            if separator and not line.startswith(" "):
                found[name.strip()] = result
    return found


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make the environments above importable here and in new processes."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    (folder / f"{MODULE}_broken.py").write_text("def make(:\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop(MODULE, None)
    for name in [name for name in gymnasium.registry if name.startswith("Doctored-")]:
        del gymnasium.registry[name]


@pytest.fixture
def without_sb3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that Stable-Baselines3 is not installed."""
    monkeypatch.setattr("nas_gym.cli.doctor.find_spec", lambda name: None)


@pytest.mark.parametrize(
    "env", ["NAS-Cell-v0", "nas_gym:NAS-Cell-v0", "NAS-Cell-Train-v0", "NAS-MetaQNN-v0", "NAS-BlockQNN-v0"]
)
def test_the_ids_of_this_project_are_healthy(env: str) -> None:
    """Nothing is wrong, and nothing is trained."""
    code, lines, err = doctor(env, "--seed", 3)
    found = rows(lines)
    assert (code, err, found["nas-gym contract"], found["vector = single"]) == (0, "", "ok", "ok"), lines
    assert any("evaluator=synthetic" in line for line in lines) == (not env.endswith("NAS-Cell-v0"))
    assert any("nas_gym:NAS" in line for line in lines)


@pytest.mark.parametrize("name", ["Sound", "make_sound", "Doctored-v0", "MaskedAtFirst"])
def test_a_sound_environment_of_a_user_is_healthy(name: str) -> None:
    """By class, by function and by id; every check of masks applies, those of this project's classes do not."""
    code, lines, _ = doctor(f"{MODULE}:{name}", "--env-arg", "size=4")
    skipped = {check for check, result in rows(lines).items() if result == "skipped" and "SB3" not in check}
    assert (code, len(rows(lines)), skipped) == (0, 16, {"nas-gym contract", "vector = single"}), lines


def test_nothing_is_wider_than_the_terminal() -> None:
    """The table wraps at 80 columns."""
    assert max(map(len, doctor(f"{MODULE}:Sound")[1])) <= 80


@pytest.mark.parametrize(
    ("name", "check", "fault", "remedy"),
    [
        ("DeadEnd", "masks: no dead end", "and the 2 action(s) [0, 1] no action is legal", "return terminated=True"),
        ("WideMask", "masks: form", "the mask has the shape (4,), but Discrete(3) needs (3,)", "dtype=np.int8"),
        ("BoolMask", "masks: form", "the mask is bool [True, True, True]; it needs int8", "dtype=np.int8"),
        ("ForgottenMask", "masks: form", 'info has no "action_mask"', "at every reset() and step()"),
        ("OtherMask", "masks: action_masks()", "action_masks() is [1, 1, 1], but info", "both from one function"),
        ("Raises", "masks: no exception", "raised ValueError: [bold]", "end the episode with a failure reward"),
        ("Drifts", "determinism", "the same actions gave something else", "draw only from self.np_random"),
        ("Endless", "episodes end", "did not end within 2,000 steps", "register with max_episode_steps"),
        ("NotANumber", "rewards are finite", "the reward is nan, no finite number", "return a finite float"),
        ("BreaksOff", "episodes end", "ZeroDivisionError: division by zero was raised", "mend reset() and step()"),
        ("TextActions", "spaces suit agents", "agents take no actions from Text(", "gymnasium.spaces.Discrete(n)"),
        ("CannotBeMade", "it can be made", "RuntimeError: no such folder [/]", "mend __init__"),
        ("Leaves", "it can be made", "SystemExit: 0", "mend __init__"),
        ("make_nothing", "it can be made", "returned a str, no gymnasium.Env", "name a subclass"),
        ("Doctored-Object-v0", "arguments are JSON", "table=[0. 0.] is a ndarray, no JSON scalar", "build the object"),
        ("Doctored-Callable-v0", "arguments are JSON", "does not survive to_json()", "entry_point='module:Class'"),
        ("GreedyCell", "nas-gym contract", 'the rule "The reward is a finite float; where an', "check_nas_env"),
    ],
)
@pytest.mark.usefixtures("without_sb3")
def test_a_fault_is_named_with_its_mending(name: str, check: str, fault: str, remedy: str) -> None:
    """The exit code is 1; the two lines below the table say what is wrong and what to do; all checks have a row."""
    code, lines, _ = doctor(f"{MODULE}:{name}")
    assert (code, len(rows(lines)), rows(lines)[check]) == (1, 16, "wrong"), lines
    (number,) = (number for number, line in enumerate(lines) if line.startswith(f"{check}: "))
    assert fault in lines[number]
    assert lines[number + 1].startswith("What to do: ")
    assert remedy in lines[number + 1]
    assert sum(line.startswith("What to do: ") for line in lines) == list(rows(lines).values()).count("wrong")


@pytest.mark.parametrize("name", ["OtherMask", "Raises", "Drifts", "GreedyCell"])
@pytest.mark.usefixtures("without_sb3")
def test_a_fault_does_not_spread_to_other_checks(name: str) -> None:
    """What is sound beside it has its ok."""
    found = rows(doctor(f"{MODULE}:{name}")[1])
    assert {found[check] for check in ("it can be made", "episodes end", "masks: form", "spawned workers")} == {"ok"}


@pytest.mark.usefixtures("without_sb3")
def test_an_argument_that_is_no_scalar_is_told() -> None:
    """Also one from the command line."""
    code, lines, _ = doctor(f"{MODULE}:Sound", "--env-arg", "table=[1, 2]")
    assert (code, any("the argument table=[1, 2] is a list" in line for line in lines)) == (1, True), lines


@pytest.mark.usefixtures("without_sb3")
def test_without_stable_baselines3_its_checks_are_skipped() -> None:
    """They say how to install it."""
    code, lines, _ = doctor(f"{MODULE}:Sound")
    assert (code, rows(lines)["SB3 check_env"], rows(lines)["SB3 PPO rollout"]) == (0, "skipped", "skipped")
    assert "nas-gym[agents]" in " ".join(lines)


def test_stable_baselines3_has_its_say() -> None:
    """A sound environment is learnt on; one that cannot be made is not."""
    pytest.importorskip("stable_baselines3")
    sound, sick = (rows(doctor(f"{MODULE}:{name}")[1])["SB3 PPO rollout"] for name in ("Sound", "CannotBeMade"))
    assert (sound, sick) == ("ok", "skipped")


@pytest.mark.usefixtures("without_sb3")
def test_an_id_that_new_processes_do_not_know_is_told() -> None:
    """The mending names the form with the module."""
    gymnasium.register("Doctored-Here-v0", entry_point=lambda **_: gymnasium.make(f"{MODULE}:Doctored-v0").unwrapped)
    code, lines, _ = doctor("Doctored-Here-v0")
    assert (code, rows(lines)["spawned workers"]) == (1, "wrong"), lines
    assert any("module:Doctored-Here-v0" in line for line in lines)


def test_a_module_that_raises_is_wrong() -> None:
    """Its exception is reported like one of the environment."""
    code, lines, _ = doctor(f"{MODULE}_broken:make")
    assert (code, any("SyntaxError" in line for line in lines)) == (1, True), lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NAS-Cel-v0"], "Did you mean 'NAS-Cell-v0'?"),
        (["CartPole-v9"], "Did you mean 'CartPole-v"),
        (["nas_gym:NAS-Cell-v7"], "Did you mean 'NAS-Cell-v0'?"),
        ([f"{MODULE}:Sond"], "Did you mean 'Sound'?"),
        ([f"{MODULE}:CONSTANT"], "is a int, no class or function"),
        (["no_such_module:Env"], "there is no module 'no_such_module'"),
        ([":Env"], "is of neither form"),
        (["NAS-Cell-v0", "--env-arg", "noise"], "--env-arg takes key=value, got 'noise'"),
        (["NAS-Cell-v0", "--seed", "-1"], "--seed must be from 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str) -> None:
    """The exit code is 2, and nothing is checked."""
    code, lines, err = doctor(*arguments)
    assert (code, lines, message in err) == (2, [], True), err


@pytest.mark.usefixtures("without_sb3")
def test_an_evaluator_of_the_user_is_kept(tmp_path: Path) -> None:
    """A table that does not exist is reported, not replaced."""
    code, lines, _ = doctor("NAS-Cell-v0", "--env-arg", "evaluator=tabular", "--env-arg", f"table={tmp_path}/t.parquet")
    assert (code, rows(lines)["it can be made"], rows(lines)["episodes end"]) == (1, "wrong", "skipped"), lines
