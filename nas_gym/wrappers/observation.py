"""What an agent sees: the mask inside the observation, one-hot features, graphs, the best return so far.

Dimension letters: N sub-environments, K features, F = summed feature sizes, C actions, V nodes, E edges.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.core import Encoding, SearchSpace
from nas_gym.wrappers.core import (
    Info,
    Masks,
    Rows,
    Seeds,
    VectorEpisodes,
    VectorMasks,
    finite_number,
    flag,
    info_of_row,
    label,
    reset_rows,
    seeded_rows,
)


class _VectorObservation(RecordConstructorArgs, VectorWrapper):
    """Replaces the observations of a vector environment, the last ones of the mode "SameStep" included."""

    def __init__(self, env: VectorEnv[Any, Any, Any], single: spaces.Space[Any], **arguments: Any) -> None:  # noqa: ANN401
        RecordConstructorArgs.__init__(self, **arguments)
        VectorWrapper.__init__(self, env)
        self._episodes = VectorEpisodes(env)
        self.single_observation_space = single
        self.observation_space = batch_space(single, env.num_envs)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes."""
        rows = reset_rows(options, self.num_envs)
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._episodes.begin(rows)
        seeds = seeded_rows(seed, self.num_envs)
        self._note_reset(info, rows & np.array([one is not None for one in seeds], np.bool_))
        return self._observe(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step in every row."""
        self._before_step()
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        found = self._episodes.step(rewards, terminated, truncated)
        self._note_step(info, found.rows, found.returns)
        if "final_obs" in info:
            last = info["final_obs"].copy()
            for row in np.flatnonzero(info["_final_obs"]).tolist():
                last[row] = self._observe_last(last[row], info_of_row(info.get("final_info", {}), row), row)
            info["final_obs"] = last
        return self._observe(observations), rewards, terminated, truncated, info

    def _note_reset(self, info: Info, seeded: npt.NDArray[np.bool_]) -> None:
        """Take note of a reset; `seeded` rows, bool [N], begin with a seed."""

    def _before_step(self) -> None:
        """Take note that a step follows."""

    def _note_step(self, info: Info, ended: Rows, returns: npt.NDArray[np.float64]) -> None:
        """Take note of a step, in which the episodes of the rows `ended` ended with `returns`."""

    @abstractmethod
    def _observe(self, observations: Any) -> Any:  # noqa: ANN401 - any space
        """Return what replaces the observations of all rows."""

    @abstractmethod
    def _observe_last(self, observation: Any, info: Info, row: int) -> Any:  # noqa: ANN401 - any space
        """Return what replaces the last observation of a row, given the last info of its episode."""


# --- the mask inside the observation -------------------------------------------------------------------


def _dict_space(seen: spaces.Space[Any], actions: int, observation_key: str, mask_key: str) -> spaces.Dict:
    label("observation_key", observation_key)
    label("mask_key", mask_key)
    if observation_key == mask_key:
        raise InvalidArgument(f"observation_key and mask_key must differ, got {mask_key!r} for both.")
    return spaces.Dict({observation_key: seen, mask_key: spaces.Box(0, 1, (actions,), np.int8)})


class DictObservation(RecordConstructorArgs, gymnasium.Wrapper):
    """Puts the action mask beside the observation, for libraries whose policies read it there.

    The observation is ``{"observation": ..., "action_mask": int8 [C]}``. RLlib's action masking asks for the key
    ``"observations"``.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], observation_key: str = "observation", mask_key: str = "action_mask"
    ) -> None:
        """Wrap an environment.

        Args:
            env: one that offers `action_masks()` or ``info["action_mask"]``.
            observation_key: key of its observation.
            mask_key: key of the mask.

        Raises:
            InvalidArgument: keys that are equal or no strings, or actions that are not the integers from 0.
        """
        RecordConstructorArgs.__init__(self, observation_key=observation_key, mask_key=mask_key)
        gymnasium.Wrapper.__init__(self, env)
        self._masks = Masks(env)
        self._keys = (observation_key, mask_key)
        self.observation_space = _dict_space(env.observation_space, self._masks.choices, observation_key, mask_key)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Info]:
        """Begin an episode.

        Raises:
            InvalidArgument: the environment offers no masks.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observe(observation, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation, info), reward, terminated, truncated, info

    def _observe(self, observation: Any, info: Info) -> dict[str, Any]:  # noqa: ANN401 - any space
        self._masks.see(info)
        return dict(zip(self._keys, (observation, self._masks.current().astype(np.int8)), strict=True))


class VectorDictObservation(_VectorObservation):
    """`DictObservation` for vector environments; the masks are int8 [N, C]."""

    def __init__(
        self, env: VectorEnv[Any, Any, Any], observation_key: str = "observation", mask_key: str = "action_mask"
    ) -> None:
        """Wrap a vector environment; arguments and errors as those of `DictObservation`."""
        self._masks = VectorMasks(env)
        self._keys = (observation_key, mask_key)
        single = _dict_space(env.single_observation_space, self._masks.choices, observation_key, mask_key)
        super().__init__(env, single, observation_key=observation_key, mask_key=mask_key)

    def _note_reset(self, info: Info, seeded: npt.NDArray[np.bool_]) -> None:
        self._masks.see(info)

    def _note_step(self, info: Info, ended: Rows, returns: npt.NDArray[np.float64]) -> None:
        self._masks.see(info)

    def _observe(self, observations: Any) -> dict[str, Any]:  # noqa: ANN401 - any space
        return dict(zip(self._keys, (observations, self._masks.current().astype(np.int8)), strict=True))

    def _observe_last(self, observation: Any, info: Info, row: int) -> dict[str, Any]:  # noqa: ANN401 - any space
        free = np.ones(self._masks.choices, np.int8)  # What the mask of a finished episode is, where none is given.
        return dict(zip(self._keys, (observation, np.array(info.get("action_mask", free), np.int8)), strict=True))


# --- one-hot -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Features:
    """How whole numbers become ones in a row of zeros.

    Attributes:
        starts: smallest value of every feature, int64 [K].
        offsets: where the first value of every feature is, int64 [K].
        size: F.
    """

    starts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, space: spaces.Space[Any]) -> _Features:
        """Read them from a space.

        Raises:
            InvalidArgument: it is neither Discrete nor MultiDiscrete.
        """
        if isinstance(space, spaces.Discrete):
            sizes, starts = np.array([space.n], np.int64), np.array([space.start], np.int64)
        elif isinstance(space, spaces.MultiDiscrete):
            sizes = np.asarray(space.nvec, np.int64).reshape(-1)
            starts = np.asarray(space.start, np.int64).reshape(-1)
        else:
            raise InvalidArgument(f"FlatOneHot needs Discrete or MultiDiscrete observations, got {space}.")
        return cls(starts, np.cumsum(sizes) - sizes, int(sizes.sum()))

    def space(self) -> spaces.Box:
        """Return the space of the result."""
        return spaces.Box(0.0, 1.0, (self.size,), np.float32)

    def rows(self, values: Any, count: int) -> npt.NDArray[np.float32]:  # noqa: ANN401 - an array or a number
        """Return float32 [count, F] for observations of so many rows."""
        columns = np.asarray(values, np.int64).reshape(count, -1) - self.starts + self.offsets
        result = np.zeros((count, self.size), np.float32)
        np.put_along_axis(result, columns, np.float32(1.0), axis=1)
        return result


class FlatOneHot(RecordConstructorArgs, gymnasium.ObservationWrapper):
    """Turns a Discrete or MultiDiscrete observation into one flat float32 vector of zeros and ones, shape [F]."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Wrap an environment.

        Raises:
            InvalidArgument: its observations are neither Discrete nor MultiDiscrete.
        """
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        self._features = _Features.of(env.observation_space)
        self.observation_space = self._features.space()

    def observation(self, observation: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401 - an array or a number
        """Return float32 [F]."""
        return self._features.rows(observation, 1)[0]


class VectorFlatOneHot(_VectorObservation):
    """`FlatOneHot` for vector environments: float32 [N, F]."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Wrap a vector environment.

        Raises:
            InvalidArgument: its observations are neither Discrete nor MultiDiscrete.
        """
        self._features = _Features.of(env.single_observation_space)
        super().__init__(env, self._features.space())

    def _observe(self, observations: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401 - of the environment
        return self._features.rows(observations, self.num_envs)

    def _observe_last(self, observation: Any, info: Info, row: int) -> npt.NDArray[np.float32]:  # noqa: ANN401 - as above
        return self._features.rows(observation, 1)[0]


# --- graphs --------------------------------------------------------------------------------------------

OTHER = "other"
"""Label 0 of every vocabulary: what it does not hold."""

_WALKS = 64


def _name(node: str) -> str:
    """Return a node's label without its number, which its position says: ``conv3`` for ``7:conv3``."""
    return re.sub(r"^\d+:", "", node)


def graph_labels(space: SearchSpace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels of nodes and of edges that sketches of a space have, in alphabetical order.

    They are collected on random walks through the grammar, always the same ones, with every choice of every kind of
    decision that they meet. Labels of rare contexts may be missing.
    """
    nodes: set[str] = set()
    edges: set[str] = set()
    tried: set[tuple[int, str]] = set()

    def collect(prefix: Encoding) -> None:
        sketch = space.sketch(prefix)
        nodes.update(map(_name, sketch.nodes))
        edges.update(text for _, _, text in sketch.edges)

    rng = np.random.default_rng(0)
    for _ in range(_WALKS):
        encoding = space.sample(rng)
        for length in range(len(encoding) + 1):
            prefix = encoding[:length]
            collect(prefix)
            decision = space.decision(prefix)
            for choice, text in enumerate(decision.labels if decision is not None else ()):
                if decision is not None and decision.mask[choice] and (decision.kind, text) not in tried:
                    tried.add((decision.kind, text))
                    collect((*prefix, choice))
    return tuple(sorted(nodes)), tuple(sorted(edges))


class _Graphs:
    """Draws prefixes of a search space as elements of a `gymnasium.spaces.Graph`.

    Attributes:
        node_labels: label of every node number; the first is `OTHER`.
        edge_labels: label of every edge number; the first is `OTHER`.
    """

    def __init__(
        self,
        space: Any,  # noqa: ANN401 - checked here
        node_labels: Sequence[str] | None,
        edge_labels: Sequence[str] | None,
    ) -> None:
        if not isinstance(space, SearchSpace):
            raise InvalidArgument("GraphObservation needs an environment of nas-gym: its `unwrapped.space` is missing.")
        found = graph_labels(space) if node_labels is None or edge_labels is None else ((), ())
        self.node_labels = (OTHER, *(found[0] if node_labels is None else _vocabulary("node_labels", node_labels)))
        self.edge_labels = (OTHER, *(found[1] if edge_labels is None else _vocabulary("edge_labels", edge_labels)))
        self._space = space
        self._nodes = {text: number for number, text in enumerate(self.node_labels)}
        self._edges = {text: number for number, text in enumerate(self.edge_labels)}

    def space(self) -> spaces.Graph:
        """Return the space of the graphs."""
        return spaces.Graph(spaces.Discrete(len(self.node_labels)), spaces.Discrete(len(self.edge_labels)))

    def draw(self, prefix: Encoding) -> GraphInstance:
        """Return the graph of a finished or unfinished architecture."""
        sketch = self._space.sketch(prefix)
        nodes = [self._nodes.get(_name(text), 0) for text in sketch.nodes]
        edges = [self._edges.get(text, 0) for _, _, text in sketch.edges]
        links = [(source, target) for source, target, _ in sketch.edges]
        return GraphInstance(
            np.array(nodes, np.int64), np.array(edges, np.int64), np.array(links, np.int32).reshape(-1, 2)
        )


def _vocabulary(name: str, labels: object) -> tuple[str, ...]:
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InvalidArgument(f"{name} must be a list of strings, got {labels!r}.")
    if not all(isinstance(text, str) for text in labels) or len(set(labels)) < len(labels) or OTHER in labels:
        raise InvalidArgument(f"{name} must be distinct strings without {OTHER!r}, which is there, got {labels!r}.")
    return tuple(labels)


class GraphObservation(RecordConstructorArgs, gymnasium.Wrapper):
    """Shows the architecture built so far as a graph: `space.sketch` as an element of `gymnasium.spaces.Graph`.

    Nodes, int64 [V], and edges, int64 [E], are numbers of labels; ``edge_links``, int32 [E, 2], holds source and target
    of every edge. Number 0 stands for labels that the vocabulary lacks. Where a space numbers its nodes (``7:conv3``)
    the number is left out, since the position of the node says it.

    Attributes:
        node_labels: label of every node number.
        edge_labels: label of every edge number.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        node_labels: Sequence[str] | None = None,
        edge_labels: Sequence[str] | None = None,
    ) -> None:
        """Wrap an environment of nas-gym.

        Args:
            env: the environment.
            node_labels: labels of the nodes 1, 2, ...; None = those that `graph_labels` finds.
            edge_labels: labels of the edges 1, 2, ...; None = those that `graph_labels` finds.

        Raises:
            InvalidArgument: an environment of another project, or labels that are no distinct strings.
        """
        RecordConstructorArgs.__init__(self, node_labels=node_labels, edge_labels=edge_labels)
        gymnasium.Wrapper.__init__(self, env)
        self._graphs = _Graphs(getattr(env.unwrapped, "space", None), node_labels, edge_labels)
        self.node_labels, self.edge_labels = self._graphs.node_labels, self._graphs.edge_labels
        self.observation_space = self._graphs.space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[GraphInstance, Info]:
        """Begin an episode."""
        _, info = self.env.reset(seed=seed, options=options)
        return self._draw(), info

    def step(self, action: Any) -> tuple[GraphInstance, Any, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._draw(), reward, terminated, truncated, info

    def _draw(self) -> GraphInstance:
        unwrapped: Any = self.unwrapped
        return self._graphs.draw(unwrapped.get_state().prefix)


class VectorGraphObservation(_VectorObservation):
    """`GraphObservation` for vector environments: a tuple of N graphs, as Gymnasium batches the space.

    Every step draws N graphs one after the other.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        node_labels: Sequence[str] | None = None,
        edge_labels: Sequence[str] | None = None,
    ) -> None:
        """Wrap a vector environment of nas-gym; arguments and errors as those of `GraphObservation`."""
        unwrapped: Any = env.unwrapped
        self._graphs = _Graphs(getattr(unwrapped, "space", None), node_labels, edge_labels)
        self._unwrapped = unwrapped
        self._before: list[Encoding] = []
        self.node_labels, self.edge_labels = self._graphs.node_labels, self._graphs.edge_labels
        super().__init__(env, self._graphs.space(), node_labels=node_labels, edge_labels=edge_labels)

    def _prefixes(self) -> list[Encoding]:
        state = self._unwrapped.get_state()
        return self._unwrapped.space.rows(state.prefixes, state.lengths)

    def _before_step(self) -> None:
        if self._episodes.same_step:
            self._before = self._prefixes()

    def _observe(self, observations: Any) -> tuple[GraphInstance, ...]:  # noqa: ANN401 - of the environment
        return tuple(self._graphs.draw(prefix) for prefix in self._prefixes())

    def _observe_last(self, observation: Any, info: Info, row: int) -> GraphInstance:  # noqa: ANN401 - as above
        # Without an encoding nothing was evaluated: masked actions that were ignored ended the episode where it was.
        return self._graphs.draw(info.get("encoding", self._before[row]))


# --- the best return so far ----------------------------------------------------------------------------

_LARGEST = float(np.finfo(np.float32).max)


def _space_with_best(seen: spaces.Space[Any], key: str) -> spaces.Space[Any]:
    best = spaces.Box(-_LARGEST, _LARGEST, (1,), np.float32)
    if isinstance(seen, spaces.Dict):
        if label("key", key) in seen.spaces:
            raise InvalidArgument(f"key must not be one of the observation already, {list(seen.spaces)}, got {key!r}.")
        return spaces.Dict({**seen.spaces, key: best})
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
        raise InvalidArgument(
            f"BestSoFar needs a Box with one axis or a Dict, got {seen}; wrap the environment in FlatOneHot first."
        )
    label("key", key)
    low, high = (
        np.append(bound.astype(np.float32), limit)
        for bound, limit in zip((seen.low, seen.high), (best.low, best.high), strict=True)
    )
    return spaces.Box(low, high, dtype=np.float32)


class BestSoFar(RecordConstructorArgs, gymnasium.Wrapper):
    """Shows the best episode return so far, that of the episode that just ended included.

    A Box observation with one axis becomes float32 with one number more at its end; a Dict gets a Box of shape [1]. A
    reset with a seed begins anew and forgets.

    Attributes:
        best: the best return so far, None before the first.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], initial: float = 0.0, key: str = "best_so_far") -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            initial: what is shown before the first episode has ended.
            key: key in a Dict observation.

        Raises:
            InvalidArgument: other observations, a key that is taken, or an `initial` that is not finite.
        """
        RecordConstructorArgs.__init__(self, initial=initial, key=key)
        gymnasium.Wrapper.__init__(self, env)
        self.initial = finite_number("initial", initial)
        self._key = key
        self.observation_space = _space_with_best(env.observation_space, key)
        self.best: float | None = None
        self._return = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode; a seed makes it forget."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._return = 0.0
        if seed is not None:
            self.best = None
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        if terminated or truncated:
            self.best = self._return if self.best is None else max(self.best, self._return)
        return self._observe(observation), reward, terminated, truncated, info

    def _observe(self, observation: Any) -> Any:  # noqa: ANN401 - an array or a dictionary
        return _with_best(observation, np.array([self.initial if self.best is None else self.best]), self._key)


class VectorBestSoFar(_VectorObservation):
    """`BestSoFar` for vector environments.

    Attributes:
        best: the best return of every row so far, NaN before the first, float64 [N].
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], initial: float = 0.0, key: str = "best_so_far", shared: bool = False
    ) -> None:
        """Wrap a vector environment.

        Args:
            env: the vector environment.
            initial: what is shown before the first episode has ended.
            key: key in a Dict observation.
            shared: whether every row sees the best of all rows; else, as a single environment would, its own.

        Raises:
            InvalidArgument: other observations, a key that is taken, or an `initial` that is not finite.
        """
        self.initial = finite_number("initial", initial)
        self.shared = flag("shared", shared)
        self.best = np.full(env.num_envs, np.nan)
        self._key = key
        single = _space_with_best(env.single_observation_space, key)
        super().__init__(env, single, initial=initial, key=key, shared=shared)

    def _note_reset(self, info: Info, seeded: npt.NDArray[np.bool_]) -> None:
        self.best[seeded] = np.nan

    def _note_step(self, info: Info, ended: Rows, returns: npt.NDArray[np.float64]) -> None:
        self.best[ended] = np.fmax(self.best[ended], returns)

    def _shown(self) -> npt.NDArray[np.float64]:
        best = np.full(len(self.best), np.fmax.reduce(self.best)) if self.shared else self.best
        return np.where(np.isnan(best), self.initial, best)

    def _observe(self, observations: Any) -> Any:  # noqa: ANN401 - arrays
        return _with_best(observations, self._shown()[:, None], self._key)

    def _observe_last(self, observation: Any, info: Info, row: int) -> Any:  # noqa: ANN401 - arrays
        return _with_best(observation, self._shown()[row : row + 1], self._key)


def _with_best(observation: Any, best: npt.NDArray[np.float64], key: str) -> Any:  # noqa: ANN401 - arrays
    """Append the best return, shape [1] or [N, 1], to an observation of one or of N rows."""
    number = np.clip(best, -_LARGEST, _LARGEST).astype(np.float32)
    if isinstance(observation, Mapping):
        return {**observation, key: number}
    return np.concatenate([np.asarray(observation, np.float32), number], axis=-1)
