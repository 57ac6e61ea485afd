"""``nas-gym doctor``: what is wrong with an environment, one's own included, and how to mend it."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import importlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import Annotated, Any

import gymnasium
import numpy as np
import numpy.typing as npt
import typer
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.passive_env_checker import env_render_passive_checker
from gymnasium.vector import AutoresetMode, VectorEnv
from rich.table import Table
from rich.text import Text

from nas_gym.cli.console import key_values, output
from nas_gym.envs.core.base import NASEnv
from nas_gym.errors import InvalidArgument, MissingExtra, UnknownName
from nas_gym.evaluators import trains_networks
from nas_gym.registration import ENVIRONMENTS
from nas_gym.registry import resolve
from nas_gym.testing import VECTOR_RULES, ContractViolation, VectorProbe, check_nas_env, check_rules, difference

Env = gymnasium.Env[Any, Any]

_STEP_LIMIT = 2_000
_EPISODES = 20
_WALK_SECONDS = 4.0
_CHILD_SECONDS = 120
_SHOWN = 600
_STYLES = {"ok": "green", "wrong": "bold red", "skipped": "yellow"}
_NOISE = ("is different from the unwrapped version", "Not able to test alternative render modes")
"""Warnings of `check_env` about how it is called here."""

_CHILD = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
form, name, text = sys.argv[1:]
if form == "id":
    import gymnasium
    make = lambda **arguments: gymnasium.make(name, **arguments)
else:
    module, _, path = name.partition(":")
    make = importlib.import_module(module)
    for part in path.split("."):
        make = getattr(make, part)
make(**json.loads(text)).close()
"""


# --- what a check finds ----------------------------------------------------------------------------


class _Wrong(Exception):
    """A check found a fault."""

    def __init__(self, what: str, remedy: str) -> None:
        """Keep what is wrong and what to do about it."""
        super().__init__(what)
        self.what, self.remedy = what, remedy


class _Skipped(Exception):
    """A check does not apply; the message says why."""


@dataclass(frozen=True)
class _Finding:
    """The outcome of one check.

    Attributes:
        name: of the check.
        result: "ok", "wrong" or "skipped".
        detail: what was found, or why it was skipped.
        remedy: what to do if it is wrong.
    """

    name: str
    result: str
    detail: str = ""
    remedy: str = ""


@dataclass
class _Walk:
    """One episode of random legal actions; entry 0 of observations and masks belongs to the reset.

    Attributes:
        seed: of the reset.
        actions: actions taken.
        observations: copies of what was returned.
        masks: copies of ``info["action_mask"]``, None where there was none.
        methods: copies of what ``action_masks()`` returned, None without the method.
        outcomes: (reward, terminated, truncated) of every action.
        over: whether the episode ended.
        dead: whether no action was legal before that.
        error: what was raised.
    """

    seed: int
    actions: list[Any] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    masks: list[Any] = field(default_factory=list)
    methods: list[Any] = field(default_factory=list)
    outcomes: list[tuple[Any, bool, bool]] = field(default_factory=list)
    over: bool = False
    dead: bool = False
    error: Exception | None = None

    def after(self, step: int) -> str:
        """Return how to come to a step."""
        if step == 0:
            return f"after reset(seed={self.seed})"
        shown = ", ".join(str(action) for action in self.actions[: min(step, 12)])
        return f"after reset(seed={self.seed}) and the {step} action(s) [{shown}{', ...' if step > 12 else ''}]"

    def record(self, env: Env, observation: object, info: dict[str, Any]) -> None:
        """Add what a reset or a step returned."""
        method = env.get_wrapper_attr("action_masks")() if env.has_wrapper_attr("action_masks") else None
        self.observations.append(copy.deepcopy(observation))
        self.masks.append(copy.deepcopy(info.get("action_mask")))
        self.methods.append(copy.deepcopy(method))

    def play(self, env: Env, actions: list[Any] | None = None) -> _Walk:
        """Play given actions, or legal ones at random until the end; keep what is raised."""
        rng = np.random.default_rng(self.seed)
        env.action_space.seed(self.seed)
        try:
            self.record(env, *env.reset(seed=self.seed))
            while not self.over and len(self.actions) < (_STEP_LIMIT if actions is None else len(actions)):
                action = _choose(env, self.masks[-1], rng) if actions is None else actions[len(self.actions)]
                if action is None:
                    self.dead = True
                    break
                self.actions.append(action)
                observation, reward, terminated, truncated, info = env.step(action)
                self.over = bool(terminated or truncated)
                self.outcomes.append((reward, bool(terminated), bool(truncated)))
                self.record(env, observation, info)
        except Exception as error:
            self.error = error
        return self


def _choose(env: Env, mask: object, rng: np.random.Generator) -> Any:  # noqa: ANN401 - an element of any space
    """Draw a legal action, or any where the mask cannot be read; None where none is legal."""
    space = env.action_space
    if not isinstance(space, spaces.Discrete) or not isinstance(mask, np.ndarray) or mask.shape != (int(space.n),):
        return space.sample()
    legal = np.flatnonzero(mask)
    return int(space.start) + int(rng.choice(legal)) if len(legal) else None


@dataclass
class _Patient:
    """The environment under examination.

    Attributes:
        name: as the user gave it.
        arguments: of the environment.
        seed: of the first episode.
        factory: the class or function, None for an id.
        synthetic: whether the evaluator was replaced, so that nothing is trained.
    """

    name: str
    arguments: dict[str, Any]
    seed: int
    factory: Callable[..., Any] | None
    synthetic: bool = False
    _open: list[Any] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The id without the module that registers it."""
        return self.name.rpartition(":")[2]

    def make(self, **further: Any) -> Env:  # noqa: ANN401 - arguments of the environment
        """Make an environment, with further arguments; `close` closes it."""
        make = self.factory or functools.partial(gymnasium.make, self.name)
        env = make(**{**self.arguments, **further})
        if not isinstance(env, gymnasium.Env):
            raise _Wrong(
                f"calling {self.name} returned a {type(env).__name__}, no gymnasium.Env.",
                "name a subclass of gymnasium.Env or a function that returns an instance of one.",
            )
        self._open.append(env)
        return env

    def make_vec(self, count: int, mode: AutoresetMode) -> VectorEnv[Any, Any, Any]:
        """Make the vector form; `close` closes it."""
        envs = gymnasium.make_vec(
            self.name,
            num_envs=count,
            vectorization_mode="vector_entry_point",
            autoreset_mode=mode,
            **self.arguments,
        )
        self._open.append(envs)
        return envs

    def close(self) -> None:
        """Close everything that was made."""
        while self._open:
            with contextlib.suppress(Exception):
                self._open.pop().close()

    @functools.cached_property
    def walks(self) -> list[_Walk]:
        """Random episodes; fewer where they take long."""
        env, begin = self.make(), time.monotonic()
        found: list[_Walk] = []
        for number in range(_EPISODES):
            walk = _Walk(self.seed + number).play(env)
            found.append(walk)
            endless = not walk.over and not walk.dead
            if endless or time.monotonic() - begin > _WALK_SECONDS:
                break
        return found

    def masked_walks(self) -> list[_Walk]:
        """Return the random episodes if there are masks to check."""
        env = self.make()
        if not isinstance(env.action_space, spaces.Discrete):
            raise _Skipped(f"masks are defined for Discrete actions; these are {type(env.action_space).__name__}.")
        walks = [walk for walk in self.walks if walk.masks]
        if not walks:
            raise _Skipped("no episode could be begun.")
        if not any(mask is not None for walk in walks for mask in (*walk.masks, *walk.methods)):
            raise _Skipped("there are no masks; every action counts as legal.")
        return walks


# --- the checks, in order --------------------------------------------------------------------------


def _can_be_made(patient: _Patient) -> str:
    patient.make()
    return "evaluator=synthetic, nothing is trained" if patient.synthetic else ""


def _spaces_suit(patient: _Patient) -> str:
    env = patient.make()
    actions, observations = env.action_space, env.observation_space
    plain = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    if not isinstance(actions, plain):
        raise _Wrong(
            f"agents take no actions from {_brief(actions)}.",
            "number the decisions and make action_space a gymnasium.spaces.Discrete(n).",
        )
    if isinstance(actions, spaces.Discrete) and actions.start != 0:
        raise _Wrong(
            f"the actions of {_brief(actions)} do not begin at 0.",
            f"make action_space Discrete({actions.n}) and add {actions.start} inside step().",
        )
    inner = observations.spaces.values() if isinstance(observations, spaces.Dict) else (observations,)
    for space in inner:
        if not isinstance(space, plain) or (isinstance(space, spaces.MultiDiscrete) and len(space.shape) > 1):
            raise _Wrong(
                f"agents take no observations from {_brief(observations)}.",
                "return one array and make observation_space a Box or a one-dimensional MultiDiscrete "
                "(gymnasium.wrappers.FlattenObservation may do it).",
            )
    return f"{_brief(observations, 60)} -> {_brief(actions, 60)}"


def _arguments_are_json(patient: _Patient) -> str:
    spec = patient.make().spec
    if spec is None:
        module, _, name = patient.name.rpartition(":")
        spec = EnvSpec(f"{name.rpartition('.')[2]}-v0", entry_point=f"{module}:{name}", kwargs=patient.arguments)
    for name, value in {**patient.arguments, **spec.kwargs}.items():
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise _Wrong(
                f"the argument {name}={_brief(value, 120)} is a {type(value).__name__}, no JSON scalar.",
                f"let {name} be a string, number, true, false or null (a name or 'module:Class' instead of an "
                "object) and build the object inside __init__.",
            )
    remedy = "register with entry_point='module:Class' and with arguments that are JSON scalars."
    try:
        text = spec.to_json()
        again = EnvSpec.from_json(text)
    except Exception as error:
        raise _Wrong(f"its EnvSpec does not survive to_json() and from_json(): {_told(error)}", remedy) from error
    if json.loads(again.to_json()) != json.loads(text) or again.kwargs != spec.kwargs:
        raise _Wrong(f"its EnvSpec is another one after to_json() and from_json(): {_brief(text)}", remedy)
    return f"{len(spec.kwargs)} argument(s)"


class _LegalAtFirst(gymnasium.spaces.Discrete):
    """Draws actions that are legal at the beginning of an episode."""

    def __init__(self, space: gymnasium.spaces.Discrete, mask: npt.NDArray[np.int8]) -> None:
        """Take over the size of a space."""
        super().__init__(space.n, start=space.start)
        self._mask = mask

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:  # noqa: ANN401 - Gymnasium's signature
        """Draw a legal action."""
        return super().sample(self._mask)


# The seed of Gymnasium's own check of determinism.
_CHECKED_SEED = 123


def _sample_legal_actions(env: Env) -> None:
    """Keep Gymnasium's checker from masked actions: their metrics are NaN, which it takes for a difference."""
    try:
        _, info = env.reset(seed=_CHECKED_SEED)
        mask, space = np.asarray(info.get("action_mask", 0)), env.action_space
    except Exception:
        return  # The checker itself says what is wrong.
    if isinstance(space, gymnasium.spaces.Discrete) and mask.shape == (space.n,) and mask.any():
        env.action_space = _LegalAtFirst(space, mask.astype(np.int8))


def _gymnasium_agrees(patient: _Patient) -> str:
    env = patient.make()
    checked = env.unwrapped if patient.factory is None else env
    modes = checked.metadata.get("render_modes") or ()
    _sample_legal_actions(checked)
    try:
        if "human" in modes:  # It would open windows; the other modes are looked at one by one.
            check_env(checked, skip_render_check=True)
            for mode in modes:
                if mode != "human":
                    _check_rendering(patient, mode)
            return "the render mode human was left out"
        check_env(checked)
    except (DependencyNotInstalled, MissingExtra):
        check_env(patient.make().unwrapped, skip_render_check=True)
        return "rendering was left out, it needs a package that is not installed"
    return ""


def _check_rendering(patient: _Patient, mode: str) -> None:
    """Check what a render mode gives at the beginning of an episode."""
    env = patient.make(render_mode=mode)
    env.reset(seed=patient.seed)
    env_render_passive_checker(env)


def _episodes_end(patient: _Patient) -> str:
    for walk in patient.walks:
        if walk.error is not None:
            raise _Wrong(
                f"{walk.after(len(walk.actions)) if walk.masks else f'reset(seed={walk.seed})'}: "
                f"{_told(walk.error)} was raised.",
                "mend reset() and step(): no action that the mask allows may raise.",
            ) from walk.error
        if not walk.over and not walk.dead:
            raise _Wrong(
                f"the episode of seed {walk.seed} did not end within {_STEP_LIMIT:,} steps.",
                "return terminated=True once the architecture is complete, or register with max_episode_steps.",
            )
    longest = max(len(walk.actions) for walk in patient.walks)
    return f"{len(patient.walks)} random episodes, at most {longest} step(s)"


def _no_dead_ends(patient: _Patient) -> str:
    for walk in patient.masked_walks():
        if walk.dead:
            raise _Wrong(
                f"dead end: {walk.after(len(walk.actions))} no action is legal, but the episode is not over.",
                "return terminated=True where nothing is left to choose, or mask the choices that lead there.",
            )
    return "none was found by random walks"


def _masks_have_the_right_form(patient: _Patient) -> str:
    walks = patient.masked_walks()
    space: Any = patient.make().action_space
    remedy = (
        f"put np.array([...], dtype=np.int8) of shape ({space.n},), 1 = legal and 0 = masked, "
        'into info["action_mask"] at every reset() and step().'
    )
    for walk in walks:
        for step, mask in enumerate(walk.masks):
            if mask is None:
                raise _Wrong(f'{walk.after(step)} info has no "action_mask".', remedy)
            if not isinstance(mask, np.ndarray):
                raise _Wrong(f"{walk.after(step)} the mask is a {type(mask).__name__}, no NumPy array.", remedy)
            if mask.shape != (int(space.n),):
                raise _Wrong(
                    f"{walk.after(step)} the mask has the shape {mask.shape}, but {_brief(space)} needs ({space.n},).",
                    remedy,
                )
            if mask.dtype != np.int8 or not np.isin(mask, (0, 1)).all():
                raise _Wrong(
                    f"{walk.after(step)} the mask is {mask.dtype} {_brief(mask.tolist(), 120)}; "
                    "it needs int8, 0 and 1 only.",
                    remedy,
                )
    return f"int8, shape ({space.n},), at every reset and step"


def _masks_agree(patient: _Patient) -> str:
    remedy = 'let action_masks() return what info["action_mask"] holds, as booleans: both from one function.'
    for walk in patient.masked_walks():
        for step, (mask, method) in enumerate(zip(walk.masks, walk.methods, strict=True)):
            if method is None:
                raise _Wrong(
                    'info has an "action_mask", but there is no method action_masks(), which MaskablePPO reads.',
                    "add `def action_masks(self)` that returns the mask as booleans.",
                )
            if mask is None:
                continue  # The check of the form says so.
            mine, theirs = np.asarray(method), np.asarray(mask)
            if mine.shape != theirs.shape or (mine.astype(np.bool_) != theirs.astype(np.bool_)).any():
                raise _Wrong(
                    f"{walk.after(step)} action_masks() is {_brief(mine.astype(int).tolist(), 120)}, "
                    f'but info["action_mask"] is {_brief(theirs.tolist(), 120)}.',
                    remedy,
                )
    return ""


def _masked_actions_do_not_raise(patient: _Patient) -> str:
    tried = 0
    for walk in patient.masked_walks():
        rng = np.random.default_rng(walk.seed)
        steps = [step for step in range(len(walk.outcomes)) if _masked(walk.masks[step]).size]
        if not steps:
            continue
        env = patient.make()
        start = int(env.action_space.start) if isinstance(env.action_space, spaces.Discrete) else 0
        step = int(rng.choice(steps))
        again = _Walk(walk.seed).play(env, walk.actions[:step])
        masked = _masked(again.masks[-1]) if again.masks and not again.error and not again.over else np.zeros(0)
        if not masked.size:
            continue  # It does not repeat; the check of determinism says so.
        action = start + int(rng.choice(masked))
        remedy = "let step() end the episode with a failure reward (terminated=True) instead of raising."
        try:
            reward = env.step(action)[1]
        except Exception as error:
            what = f"{walk.after(step)} the masked action {action} raised {_told(error)}"
            raise _Wrong(what, remedy) from error
        if not _is_finite(reward):
            raise _Wrong(f"{walk.after(step)} the masked action {action} gave the reward {_brief(reward)}.", remedy)
        tried += 1
    if not tried:
        raise _Skipped("no action was ever masked.")
    return f"{tried} were taken"


def _masked(mask: object) -> np.ndarray[Any, Any]:
    """Return the masked choices of a mask that can be read, else none."""
    return np.flatnonzero(mask == 0) if isinstance(mask, np.ndarray) and mask.ndim == 1 else np.zeros(0, np.int64)


def _rewards_are_finite(patient: _Patient) -> str:
    rewards: list[float] = []
    for walk in patient.walks:
        for step, (reward, _, _) in enumerate(walk.outcomes, start=1):
            if not _is_finite(reward):
                raise _Wrong(
                    f"{walk.after(step)} the reward is {_brief(reward)}, no finite number.",
                    "return a finite float: a failure reward such as -1.0 where an evaluation failed or gave NaN.",
                )
            rewards.append(float(reward))
    if not rewards:
        raise _Skipped("no step could be taken.")
    return f"between {min(rewards):.4g} and {max(rewards):.4g}"


def _is_finite(reward: Any) -> bool:  # noqa: ANN401 - whatever an environment returns
    try:
        return math.isfinite(reward)
    except (TypeError, ValueError):
        return False


def _seeds_determine_episodes(patient: _Patient) -> str:
    env = patient.make()
    if env.spec is not None and env.spec.nondeterministic:
        raise _Skipped("it is registered as nondeterministic.")
    walks = [walk for walk in patient.walks if walk.observations][:4]
    if not walks:
        raise _Skipped("no episode could be begun.")
    for walk in walks:
        for where, player in (("the same environment", env), ("a new environment", patient.make())):
            again = _Walk(walk.seed).play(player, walk.actions)
            for name in ("observations", "outcomes", "masks"):
                found = difference(getattr(again, name), getattr(walk, name), name)
                if found is not None:
                    raise _Wrong(
                        f"seed {walk.seed} and the same actions gave something else in {where}: {_brief(found)}",
                        "draw only from self.np_random after super().reset(seed=seed), keep nothing of earlier "
                        "episodes, and use neither time nor global random numbers.",
                    )
    return f"{len(walks)} episodes, each three times"


def _contract_holds(patient: _Patient) -> str:
    _need_nas_env(patient)
    try:
        check_nas_env(patient.make, None, np.random.default_rng(patient.seed), episodes=2)
    except ContractViolation as violation:
        raise _broken(violation, "reproduce it with nas_gym.testing.check_nas_env(make_env)") from violation
    return "every rule of nas_gym.testing"


def _vector_equals_single(patient: _Patient) -> str:
    spec = _need_nas_env(patient).spec
    if patient.factory is not None or spec is None or spec.vector_entry_point is None:
        raise _Skipped("it is not registered with a vector_entry_point.")
    probe = VectorProbe(patient.make, patient.make_vec, (patient.seed,), steps=30)
    try:
        check_rules(VECTOR_RULES, probe)
    except ContractViolation as violation:
        raise _broken(
            violation, "reproduce it with nas_gym.testing.check_nas_env(make_env, make_vec_env)"
        ) from violation
    return "in every auto-reset mode"


def _need_nas_env(patient: _Patient) -> Env:
    env = patient.make()
    if not isinstance(env.unwrapped, NASEnv):
        raise _Skipped("it is no subclass of nas_gym's NASEnv.")
    return env


def _broken(violation: ContractViolation, how: str) -> _Wrong:
    witness = ", ".join(f"{name}={_brief(value, 120)}" for name, value in violation.witness.items())
    return _Wrong(
        f'the rule "{violation.rule}" is broken: expected {_brief(violation.expected, 200)}, '
        f"received {_brief(violation.received, 200)}. Witness: {witness or 'none needed'}.",
        f"{how}, and mend what the rule names.",
    )


def _need_sb3() -> None:
    if find_spec("stable_baselines3") is None:
        raise _Skipped('stable_baselines3 is not installed; pip install "nas-gym[agents]".')


def _sb3_agrees(patient: _Patient) -> str:
    _need_sb3()
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_for_sb3(patient.make(), warn=True, skip_render_check=True)
    return ""


def _ppo_learns(patient: _Patient) -> str:
    _need_sb3()
    from stable_baselines3 import PPO

    env = patient.make()
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    PPO(policy, env, n_steps=64, batch_size=64, n_epochs=1, device="cpu", seed=patient.seed).learn(64)
    return "64 steps and an update"


def _workers_can_make_it(patient: _Patient) -> str:
    failure = _in_a_worker("id" if patient.factory is None else "object", patient.name, patient.arguments)
    if not failure:
        return ""
    for module in () if ":" in patient.name else _registering_modules(patient.name):
        if not _in_a_worker("id", f"{module}:{patient.name}", patient.arguments):
            return f"in spawned workers (AsyncVectorEnv) write {module}:{patient.name}"
    raise _Wrong(
        f"a new process, such as a spawned worker of AsyncVectorEnv, cannot make it: {_brief(failure)}",
        "put it into a module that can be imported, register it when that module is imported, and name it "
        f"module:{patient.id}, as in nas_gym:NAS-Cell-v0.",
    )


def _registering_modules(name: str) -> Iterator[str]:
    """Iterate over the modules whose import may register an id: the package of its entry point, then inwards."""
    entry = gymnasium.registry[name].entry_point if name in gymnasium.registry else None
    path = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "") or ""
    parts = path.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1) if path)


def _in_a_worker(form: str, name: str, arguments: dict[str, Any]) -> str:
    """Make an environment in a new interpreter, which knows what a spawned worker knows; return what was raised."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, form, name, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_CHILD_SECONDS,
    )
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


@dataclass(frozen=True)
class _Check:
    """One row: its name, the check, and what to do where the check itself raises."""

    name: str
    run: Callable[[_Patient], str]
    remedy: str
    tells_warnings: bool = False


_CUSTOM = "see https://gymnasium.farama.org/introduction/create_custom_env/"
_SB3 = "see https://stable-baselines3.readthedocs.io/en/master/guide/custom_env.html"
_FIRST = "mend what the exception names; the checks above may have found its cause."

_CHECKS = (
    _Check("it can be made", _can_be_made, "mend __init__, or give the arguments it needs with --env-arg key=value."),
    _Check("spaces suit agents", _spaces_suit, "set self.observation_space and self.action_space in __init__."),
    _Check("arguments are JSON", _arguments_are_json, "pass only strings, numbers, true, false and null."),
    _Check("Gymnasium check_env", _gymnasium_agrees, f"mend what the message names; {_CUSTOM}.", True),
    _Check("episodes end", _episodes_end, _FIRST),
    _Check("rewards are finite", _rewards_are_finite, _FIRST),
    _Check("masks: form", _masks_have_the_right_form, _FIRST),
    _Check("masks: action_masks()", _masks_agree, _FIRST),
    _Check("masks: no dead end", _no_dead_ends, _FIRST),
    _Check("masks: no exception", _masked_actions_do_not_raise, _FIRST),
    _Check("determinism", _seeds_determine_episodes, _FIRST),
    _Check("nas-gym contract", _contract_holds, _FIRST),
    _Check("vector = single", _vector_equals_single, _FIRST),
    _Check("SB3 check_env", _sb3_agrees, f"mend what the message names; {_SB3}.", True),
    _Check("SB3 PPO rollout", _ppo_learns, f"{_FIRST[:-1]}; {_SB3}."),
    _Check("spawned workers", _workers_can_make_it, "let it be made in seconds, without asking anything."),
)


# --- the command -----------------------------------------------------------------------------------


def doctor(
    env: Annotated[str, typer.Argument(help="Environment id, module:id, or module:Class (or function).")],
    env_arg: Annotated[list[str] | None, typer.Option(help="Argument of the environment, key=value.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random episodes.")] = 0,
) -> None:
    """Check an environment, your own included; say what is wrong and how to mend it.

    Example: nas-gym doctor NAS-MetaQNN-v0

    Your own: nas-gym doctor my_package.my_module:MyEnv --env-arg size=4
    """
    if not 0 <= seed < 2**31:
        raise InvalidArgument(f"--seed must be from 0 to {2**31 - 1}, got {seed}.")
    arguments = key_values("--env-arg", env_arg or [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patient = _admit(env, arguments, seed)
    findings: list[_Finding] = []
    for check in _CHECKS:
        if findings and findings[0].result == "wrong":
            findings.append(_Finding(check.name, "skipped", "it cannot be made."))
        else:
            findings.append(_examine(check, patient))
    _show(env, findings)
    if any(finding.result == "wrong" for finding in findings):
        raise typer.Exit(1)


def _admit(name: str, arguments: dict[str, Any], seed: int) -> _Patient:
    """Find what a name means.

    Raises:
        UnknownName: no such id, class or function.
        InvalidArgument: the module does not exist.
    """
    module_name, colon, attribute = name.partition(":")
    factory: Any = None
    if colon:
        if not module_name or module_name.startswith(".") or not attribute:
            raise InvalidArgument(f"{name!r} is of neither form: id, module:id, module:Class, module:function.")
        try:
            module = _imported(module_name, name)
        except InvalidArgument:
            raise
        except (Exception, SystemExit) as error:  # A fault of the environment, which the first check reports.
            return _Patient(name, arguments, seed, functools.partial(_fail, error))
        factory = module
        for part in attribute.split("."):
            factory = getattr(factory, part, None)
        if factory is None and attribute not in gymnasium.registry:
            own = [key for key, value in vars(module).items() if inspect.isclass(value) or inspect.isroutine(value)]
            known = {*(key for key in own if not key.startswith("_")), *_near_ids(attribute)}
            raise UnknownName(f"class, function or environment id in {module_name}", attribute, known)
        if factory is not None and not callable(factory):
            raise InvalidArgument(f"{name} is a {type(factory).__name__}, no class or function that makes one.")
    elif name not in gymnasium.registry:
        raise UnknownName("environment", name, {*ENVIRONMENTS, *_near_ids(name)})
    synthetic = "evaluator" not in arguments and _trains(attribute or name, factory)
    if synthetic:
        arguments = {**arguments, "evaluator": "synthetic"}
    return _Patient(name, arguments, seed, factory, synthetic)


def _imported(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InvalidArgument(
            f"there is no module {error.name!r} (from {name!r}). Install it, or run from its folder: "
            f"PYTHONPATH=. nas-gym doctor {name}"
        ) from error


def _fail(error: BaseException, **_: object) -> Env:
    raise error


def _near_ids(name: str) -> list[str]:
    return difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.6)


def _trains(id_: str, factory: Any) -> bool:  # noqa: ANN401 - any callable, or None
    """Tell whether an environment of this project trains networks unless told otherwise."""
    if factory is None and id_ in ENVIRONMENTS:
        factory = resolve(ENVIRONMENTS[id_].entry_point)
    if factory is None or not str(getattr(factory, "__module__", "")).startswith("nas_gym."):
        return False
    evaluator = inspect.signature(factory).parameters.get("evaluator")
    return evaluator is not None and trains_networks(evaluator.default)


def _examine(check: _Check, patient: _Patient) -> _Finding:
    """Run a check; whatever it raises is a finding."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            note = check.run(patient)
        except _Skipped as reason:
            return _Finding(check.name, "skipped", str(reason))
        except _Wrong as fault:
            return _Finding(check.name, "wrong", fault.what, fault.remedy)
        except (Exception, SystemExit) as error:
            remedy = check.remedy
            if check.run is _can_be_made and patient.synthetic:
                remedy += " The doctor chose evaluator=synthetic; --env-arg evaluator=training trains instead."
            return _Finding(check.name, "wrong", _told(error), remedy)
        finally:
            patient.close()
    told = [
        text
        for one in caught
        if not any(noise in (text := _plain(str(one.message)).removeprefix("WARN: ")) for noise in _NOISE)
    ]
    if check.tells_warnings and told:
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        note = f"{note}{'; ' if note else ''}it warns{more}: {_brief(told[0], 200)}"
    return _Finding(check.name, "ok", note)


def _show(env: str, findings: list[_Finding]) -> None:
    """Print the table, then what is wrong and what to do."""
    listing = Table("Check", "Result", "", box=None, pad_edge=False, header_style="bold")
    for finding in findings:
        detail = "see below" if finding.result == "wrong" else finding.detail
        listing.add_row(finding.name, Text(finding.result, style=_STYLES[finding.result]), Text(_plain(detail)))
    output.print(listing)
    for finding in findings:
        if finding.result == "wrong":
            output.print()
            fault = Text.assemble((f"{finding.name}: ", "bold red"), _plain(finding.detail))
            output.print(fault, soft_wrap=True)
            output.print(Text(f"What to do: {_plain(finding.remedy)}"), soft_wrap=True)
    counts = [(result, sum(finding.result == result for finding in findings)) for result in _STYLES]
    output.print()
    summary = ", ".join(f"{count} {result}" for result, count in counts)
    output.print(Text(f"{_plain(env)}: {summary}."), soft_wrap=True)


def _told(error: BaseException) -> str:
    """Return type and message of an exception."""
    text = _plain(str(error))
    return _clipped(f"{type(error).__name__}: {text}" if text else type(error).__name__, _SHOWN)


def _brief(value: object, length: int = 300) -> str:
    """Return a value in one short line; strings without quotes."""
    return _clipped(_plain(str(value)), length)


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def _plain(text: str) -> str:
    """Return a text in one line, without escape sequences and control characters."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
