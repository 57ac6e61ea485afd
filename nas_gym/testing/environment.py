"""The contract of single environments.

Dimension letters: C = `space.max_choices`.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from nas_gym.errors import BudgetExhausted, EpisodeOver, FidelityError, InvalidAction, InvalidArgument
from nas_gym.evaluators.core import LABELS, Status
from nas_gym.search_spaces.core import Encoding
from nas_gym.testing.rules import arrays_in, demand, demand_equal, demand_raises, parts

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
"""Makes a single environment, wrapped or not."""

_STEP_LIMIT = 2_000

_FINAL_KEYS = {"action_mask", "encoding", "status", "metrics", "cost_seconds"}


@dataclass(frozen=True)
class EnvProbe:
    """How to make an environment, and seeds of the episodes to play in it."""

    make_env: MakeEnv
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class _Episode:
    """What an environment returned: reset first, then every step.

    Attributes:
        actions: actions taken.
        observations: one more than actions.
        infos: one more than actions.
        outcomes: (reward, terminated, truncated) of every action.
        copies: deep copies of observations and infos, made when they were returned.
    """

    actions: list[int]
    observations: list[npt.NDArray[Any]]
    infos: list[dict[str, Any]]
    outcomes: list[tuple[Any, bool, bool]]
    copies: list[tuple[npt.NDArray[Any], dict[str, Any]]]

    def content(self) -> tuple[object, ...]:
        """Return everything that must repeat."""
        return self.observations, self.infos, self.outcomes


def _play(
    env: gymnasium.Env[Any, Any],
    rng: np.random.Generator,
    seed: int | None = None,
    actions: Sequence[int] | None = None,
) -> _Episode:
    """Play one episode: the given actions, or legal ones at random until the end."""
    observation, info = env.reset(seed=seed)
    episode = _Episode([], [observation], [info], [], [copy.deepcopy((observation, info))])
    over = False
    while not over and (actions is None or len(episode.actions) < len(actions)):
        demand(
            len(episode.actions) < _STEP_LIMIT, f"an end within {_STEP_LIMIT} steps", episode.actions[:20], seed=seed
        )
        mask = episode.infos[-1]["action_mask"]
        action = _legal(mask, rng) if actions is None else actions[len(episode.actions)]
        observation, reward, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        episode.actions.append(int(action))
        episode.observations.append(observation)
        episode.infos.append(info)
        episode.outcomes.append((reward, terminated, truncated))
        episode.copies.append(copy.deepcopy((observation, info)))
    return episode


def _legal(mask: npt.NDArray[np.int8], rng: np.random.Generator) -> int:
    legal = np.flatnonzero(mask)
    demand(len(legal) > 0, "a legal action while the episode goes on", mask)
    return int(rng.choice(legal))


def _episodes(probe: EnvProbe) -> Iterator[tuple[int, gymnasium.Env[Any, Any], _Episode]]:
    """Play one episode a seed, all in the same environment."""
    env = probe.make_env()
    for seed in probe.seeds:
        yield seed, env, _play(env, np.random.default_rng(seed), seed)


def _illegal_streams(probe: EnvProbe) -> Iterator[tuple[int, list[int]]]:
    """Iterate over (seed, legal actions and a last, masked one); empty where nothing is ever masked."""
    for seed, _, episode in _episodes(probe):
        rng = np.random.default_rng(seed)
        masked = [step for step, info in enumerate(episode.infos[:-1]) if not info["action_mask"].all()]
        for step in masked:
            illegal = np.flatnonzero(episode.infos[step]["action_mask"] == 0)
            yield seed, [*episode.actions[:step], int(rng.choice(illegal))]


def _spaces_hold_what_is_returned(probe: EnvProbe) -> None:
    """Actions are Discrete(C); every observation is inside the observation space with its dtype and shape."""
    for seed, env, episode in _episodes(probe):
        choices = _choices(env)
        demand(env.action_space == gymnasium.spaces.Discrete(choices), f"Discrete({choices})", env.action_space)
        space = env.observation_space
        for seen in episode.observations:
            demand(isinstance(seen, np.ndarray), "an array", seen, seed=seed, actions=episode.actions)
            inside = seen.dtype == space.dtype and seen.shape == space.shape and space.contains(seen)
            demand(inside, f"an element of {space}", seen, seed=seed, actions=episode.actions)


def _choices(env: gymnasium.Env[Any, Any]) -> int:
    """Return the number of actions C: the search space's, where actions are its decisions."""
    inner = parts(env)
    return inner.space.max_choices if inner.actions_are_decisions else int(inner.action_space.n)


def _masks_are_given(probe: EnvProbe) -> None:
    """`info["action_mask"]` is an int8 array of 0 and 1 at every reset and step and equals `action_masks()`."""
    env = probe.make_env()
    for seed in probe.seeds:
        rng = np.random.default_rng(seed)
        _, info = env.reset(seed=seed)
        actions: list[int] = []
        _check_mask(info, env, {"seed": seed, "actions": actions})
        over = False
        # That there is an end, and a legal action until then, is the next rule.
        while not over and info["action_mask"].any() and len(actions) < _STEP_LIMIT:
            actions.append(_legal(info["action_mask"], rng))
            _, _, terminated, truncated, info = env.step(actions[-1])
            over = terminated or truncated
            _check_mask(info, env, {"seed": seed, "actions": actions})


def _check_mask(info: dict[str, Any], env: gymnasium.Env[Any, Any], witness: dict[str, object]) -> None:
    mask: Any = info.get("action_mask")
    choices = _choices(env)
    formed = isinstance(mask, np.ndarray) and mask.dtype == np.int8 and mask.shape == (choices,)
    demand(formed and bool(np.isin(mask, (0, 1)).all()), f"int8 [{choices}] of 0 and 1", mask, **witness)
    method = env.get_wrapper_attr("action_masks")()
    demand_equal(method, np.asarray(mask).astype(np.bool_), "action_masks() equal to the mask", **witness)


def _returned_data_is_fresh(probe: EnvProbe) -> None:
    """Observations, masks and infos are new at every call; writing into them changes nothing later."""
    for seed, env, episode in _episodes(probe):
        witness = {"seed": seed, "actions": episode.actions}
        kept = list(zip(episode.observations, episode.infos, strict=True))
        demand_equal(kept, episode.copies, "returned data to stay as it was", **witness)
        for one, other in itertools.combinations(arrays_in(kept), 2):
            demand(not np.shares_memory(one, other), "arrays of their own", (one, other), **witness)
        dictionaries = [part for info in episode.infos for part in (info, info.get("metrics")) if part is not None]
        demand(
            len({id(part) for part in dictionaries}) == len(dictionaries), "dictionaries of their own", kept, **witness
        )
        for array in arrays_in(kept):
            array[...] = 0
        episode.infos[-1].get("metrics", {}).clear()
        again = _play(env, np.random.default_rng(seed), seed, episode.actions)
        replayed = list(zip(again.observations, again.infos, strict=True))
        demand_equal(replayed, episode.copies, "the same episode after writing into the old one", **witness)


def _unfinished_episodes_go_on(probe: EnvProbe) -> None:
    """While an episode goes on, at least one action is legal, and it comes to an end."""
    for _ in _episodes(probe):
        pass  # `_play` demands both.


def _finished_masks_are_free(probe: EnvProbe) -> None:
    """The mask of a finished episode is all ones."""
    for seed, _, episode in _episodes(probe):
        mask = episode.infos[-1]["action_mask"]
        demand(mask.all(), "ones", mask, seed=seed, actions=episode.actions)


def _rewards_come_at_the_end(probe: EnvProbe) -> None:
    """The reward is a finite float; where an episode builds one architecture, 0 before the last step."""
    for seed, env, episode in _episodes(probe):
        rewards = [reward for reward, _, _ in episode.outcomes]
        witness = {"seed": seed, "actions": episode.actions}
        demand(
            all(isinstance(reward, float) and math.isfinite(reward) for reward in rewards), "floats", rewards, **witness
        )
        early = parts(env).actions_are_decisions and any(rewards[:-1])
        demand(not early, "0 before the end", rewards, **witness)


def _illegal_actions_end_the_episode(probe: EnvProbe) -> None:
    """A masked action terminates with the failure reward, status invalid_action, NaN metrics and one query."""
    for seed, actions in _illegal_streams(probe):
        env = probe.make_env()
        _play(env, np.random.default_rng(seed), seed, actions[:-1])
        before = parts(env).counter.queries
        episode = _play(probe.make_env(), np.random.default_rng(seed), seed, actions)
        env.step(actions[-1])
        witness = {"seed": seed, "actions": actions}
        failure = (parts(env).objective.failure_reward, True, False)
        demand_equal(episode.outcomes[-1], failure, f"(reward, terminated, truncated) = {failure}", **witness)
        info = episode.infos[-1]
        demand(info["status"] == Status.INVALID_ACTION.label, "invalid_action", info["status"], **witness)
        demand(all(math.isnan(value) for value in info["metrics"].values()), "NaN", info["metrics"], **witness)
        charged = parts(env).counter.queries - before
        demand(charged == 1, "one query", charged, **witness)


def _outside_actions_raise(probe: EnvProbe) -> None:
    """An action that is no integer inside the action space raises InvalidAction, and the episode goes on."""
    env = parts(probe.make_env())
    seed = probe.seeds[0]
    episode = _play(env, np.random.default_rng(seed), seed)
    env.reset(seed=seed)
    before = env.get_state(), env.counter.environment_steps
    for action in (-1, _choices(env), 0.5, "0", None):
        demand_raises(InvalidAction, lambda a=action: env.step(a), action=action)
        after = env.get_state(), env.counter.environment_steps
        demand(after == before, "an unchanged episode and counter", after, action=action)
    step = env.step(episode.actions[0])
    demand_equal(step[0], episode.observations[1], "the episode to go on", actions=episode.actions)


def _steps_need_an_episode(probe: EnvProbe) -> None:
    """A step before the first reset or after the end raises EpisodeOver and counts nothing."""
    env = parts(probe.make_env())
    demand_raises(EpisodeOver, lambda: env.step(0))
    seed = probe.seeds[0]
    episode = _play(env, np.random.default_rng(seed), seed)
    before = env.counter.environment_steps, env.counter.queries
    demand_raises(EpisodeOver, lambda: env.step(0), seed=seed, actions=[*episode.actions, 0])
    after = env.counter.environment_steps, env.counter.queries
    demand(after == before, f"(steps, queries) = {before}", after, seed=seed, actions=[*episode.actions, 0])


def _final_infos_are_complete(probe: EnvProbe) -> None:
    """The last info adds a legal encoding, a known status, all search-time metrics and the cost."""
    for seed, env, episode in _episodes(probe):
        problem, info = parts(env), episode.infos[-1]
        witness = {"seed": seed, "actions": episode.actions}
        demand(set(info) - {"message"} >= _FINAL_KEYS, f"the keys {sorted(_FINAL_KEYS)}", sorted(info), **witness)
        demand_equal(problem.space.validate(info["encoding"]), info["encoding"], "a legal encoding", **witness)
        demand(info["status"] in LABELS, f"one of {LABELS}", info["status"], **witness)
        names = problem.evaluator.search_metrics
        demand(set(info["metrics"]) == set(names), f"the metrics {names}", tuple(info["metrics"]), **witness)
        floats = (*info["metrics"].values(), info["cost_seconds"])
        demand(all(isinstance(value, float) for value in floats), "floats", floats, **witness)


def _held_out_metrics_stay_hidden(probe: EnvProbe) -> None:
    """No info contains a held-out metric."""
    for seed, env, episode in _episodes(probe):
        metrics = parts(env).evaluator.metrics
        held_out = {name for name, metric in metrics.items() if metric.held_out}
        seen = set().union(*(_keys(info) for info in episode.infos))
        demand(not seen & held_out, f"none of {sorted(held_out)}", sorted(seen), seed=seed, actions=episode.actions)


def _keys(value: object) -> set[str]:
    if not isinstance(value, dict):
        return set()
    return {str(key) for key in value}.union(*(_keys(item) for item in value.values()))


def _states_restore_episodes(probe: EnvProbe) -> None:
    """`get_state` is a hashable value; after `set_state` the episode goes on as it did, in a new environment too."""
    for seed, env, episode in _episodes(probe):
        rng = np.random.default_rng(seed)
        for step in range(len(episode.actions)):
            witness = {"seed": seed, "actions": episode.actions, "step": step}
            _play(env, rng, seed, episode.actions[:step])
            state = parts(env).get_state()
            demand(hash(state) == hash(parts(env).get_state()), "equal hashes of one state", state, **witness)
            parts(env).step(episode.actions[step])
            for player in (parts(env), parts(probe.make_env())):
                player.set_state(state)
                player.evaluator.reset_repeats()
                mask = episode.infos[step]["action_mask"].astype(np.bool_)
                demand_equal(player.action_masks(), mask, "the mask of the state", **witness)
                for index, action in enumerate(episode.actions[step:], start=step):
                    expected = (episode.observations[index + 1], *episode.outcomes[index], episode.infos[index + 1])
                    demand_equal(player.step(action), expected, "the step that was taken first", **witness)


def _seeds_determine_episodes(probe: EnvProbe) -> None:
    """The same seed and actions give the same episode, in the same and in a new environment."""
    for seed, env, episode in _episodes(probe):
        for player in (env, probe.make_env()):
            again = _play(player, np.random.default_rng(seed), seed, episode.actions)
            demand_equal(again.content(), episode.content(), "the same episode", seed=seed, actions=episode.actions)


def _options_are_checked(probe: EnvProbe) -> None:
    """`reset` takes every fidelity of the evaluator, refuses others, and refuses unknown options."""
    env = parts(probe.make_env())
    demand_raises(InvalidArgument, lambda: env.reset(options={"no_such_option": 1}), options="no_such_option")
    fidelities = env.evaluator.fidelities
    for fidelity in fidelities or ():
        env.reset(options={"fidelity": fidelity})
    for fidelity in (1,) if fidelities is None else (fidelities[0] - 1, fidelities[1] + 1):
        demand_raises(FidelityError, lambda f=fidelity: env.reset(options={"fidelity": f}), fidelity=fidelity)


def _counters_are_exact(probe: EnvProbe) -> None:
    """The counter counts every step, query, distinct canonical architecture and simulated second, once each."""
    env = probe.make_env()
    space, counter = parts(env).space, parts(env).counter
    streams = [(seed, episode.actions) for seed, _, episode in _episodes(probe)]
    seen: set[Encoding] = set()
    steps, queries, seconds = 0, 0, 0.0
    for seed, actions in (*streams, *_illegal_streams(probe), streams[0]):
        episode = _play(env, np.random.default_rng(seed), seed, actions)
        steps += len(actions)
        for info in _queries_of(env, episode):
            failed = info["status"] == Status.INVALID_ACTION.label
            canonical = info["encoding"] if failed else space.canonical(info["encoding"])
            if failed or canonical not in seen or not counter.repeats_are_free:
                queries += 1
                seconds += info["cost_seconds"]
            if not failed:
                seen.add(canonical)
        used, expected = counter.usage(), (steps, queries, len(seen))
        counts = (used.environment_steps, used.queries, used.unique_architectures)
        demand(counts == expected, f"(steps, queries, unique) = {expected}", counts, seed=seed, actions=actions)
        close = math.isclose(used.simulated_seconds, seconds)
        demand(close, f"{seconds} simulated seconds", used.simulated_seconds, seed=seed, actions=actions)


def _queries_of(env: gymnasium.Env[Any, Any], episode: _Episode) -> list[dict[str, Any]]:
    """Return the infos that tell of a query: the last one, or where actions are edits, every one with a value."""
    if parts(env).actions_are_decisions:
        return episode.infos[-1:]
    return [info for info in episode.infos if "value" in info]


def _budgets_are_exact(probe: EnvProbe) -> None:
    """The query after the budget raises BudgetExhausted, counts no query, and leaves the environment usable."""
    env = probe.make_env()
    counter = parts(env).counter
    rng = np.random.default_rng(probe.seeds[0])
    _play(env, rng)
    counter.budget = counter.queries
    query = _unseen(env, rng)
    used = counter.queries
    demand_raises(BudgetExhausted, lambda: _play(env, rng, None, query), budget=used, encoding=query)
    demand(counter.queries == used, f"{used} queries", counter.queries, budget=used)
    counter.budget = None
    _play(env, rng)
    demand(counter.queries >= used, f"at least {used} queries", counter.queries)


def _unseen(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Encoding | None:
    """Return actions that lead to a query which must be charged; None = any will do, where every step is one."""
    inner = parts(env)
    if not inner.actions_are_decisions:
        return None
    query = inner.space.sample(rng)
    while inner.counter.repeats_are_free and not inner.counter.first_seen([query]).all():
        query = inner.space.sample(rng)
    return query


def _specifications_round_trip(probe: EnvProbe) -> None:
    """A registered environment is made again by its specification after a JSON round trip."""
    env = probe.make_env()
    if env.spec is None:
        return
    text = env.spec.to_json()
    demand(json.loads(EnvSpec.from_json(text).to_json()) == json.loads(text), "the same JSON", text, id=env.spec.id)
    twin = gymnasium.make(EnvSpec.from_json(text))
    seed = probe.seeds[0]
    episode = _play(env, np.random.default_rng(seed), seed)
    again = _play(twin, np.random.default_rng(seed), seed, episode.actions)
    demand_equal(again.content(), episode.content(), "the same episode", seed=seed, actions=episode.actions)


ENVIRONMENT_RULES: tuple[Callable[[EnvProbe], None], ...] = (
    _masks_are_given,
    _unfinished_episodes_go_on,
    _spaces_hold_what_is_returned,
    _finished_masks_are_free,
    _rewards_come_at_the_end,
    _final_infos_are_complete,
    _held_out_metrics_stay_hidden,
    _seeds_determine_episodes,
    _returned_data_is_fresh,
    _illegal_actions_end_the_episode,
    _outside_actions_raise,
    _steps_need_an_episode,
    _states_restore_episodes,
    _options_are_checked,
    _counters_are_exact,
    _budgets_are_exact,
    _specifications_round_trip,
)
"""Rules of `check_nas_env` for the single environment, in order."""
