"""Tabular Q-learning with an epsilon schedule and experience replay: the agent of MetaQNN and BlockQNN.

Sources: Watkins, 1989; Baker et al., ICLR 2017, arXiv 1611.02167, sections 3 and 4.2; Zhong et al., CVPR 2018, arXiv
1708.05552, section 3.2.

Dimension letters: B episodes, T decisions, C choices, S features of a state, Q known states.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces.core import Encoding

from .core.base import Agent, Decided, Envs, EpisodeBatch, Greedy, require, require_count

Schedule = tuple[tuple[float, int], ...]
"""Pairs (epsilon, for how many); the last epsilon stays."""

METAQNN_SCHEDULE: Schedule = (
    (1.0, 1500),
    (0.9, 100),
    (0.8, 100),
    (0.7, 100),
    (0.6, 150),
    (0.5, 150),
    (0.4, 150),
    (0.3, 150),
    (0.2, 150),
    (0.1, 150),
)
"""Different architectures per epsilon, 2,700 in all (Baker et al. 2017, table 2)."""

BLOCKQNN_SCHEDULE: Schedule = tuple(
    (epsilon, 64 * iterations)
    for epsilon, iterations in (
        (1.0, 95),
        (0.9, 7),
        (0.8, 7),
        (0.7, 7),
        (0.6, 10),
        (0.5, 10),
        (0.4, 10),
        (0.3, 10),
        (0.2, 10),
        (0.1, 12),
    )
)
"""Episodes per epsilon, 178 iterations of 64, 11,392 in all (Zhong et al. 2018; the table is from a port)."""

_MOST_STATES = 100_000
"""Published states that are kept by prefix, since an array of one row takes long to make."""

COUNTED = ("architectures", "episodes")
INTERMEDIATE_REWARDS = ("none", "length", "max_length")


@dataclass(frozen=True)
class QLearningConfig:
    """Settings of `QLearning`; the defaults are for budgets of about 1,000 queries, of which 200 explore.

    Learning rate and history are those of {0.2, 0.5} x {2, 3} with the lowest simple regret after 1,000 queries on
    synthetic landscapes; the schedule, among seven, was chosen on the table `digits` (mean over 12 seeds 0.02 points,
    random search 0.22), and with it the regret on 24 synthetic landscapes of `NAS-Cell-v0` and `NAS-MetaQNN-Table-v0`
    (evaluation seeds 100 to 111) is 0.24 and 0 times that of random search. The other fields were not tuned.

    Attributes:
        epsilon_schedule: pairs (epsilon, count), exploration first; the last epsilon stays.
        counted: what the counts of the schedule are: different "architectures" or "episodes".
        learning_rate: weight of a new value, alpha.
        discount: gamma.
        initial_value: of every state and action.
        batch_size: episodes between two rounds of learning.
        replay_draws: episodes drawn from the memory and learnt per episode played, with replacement; the memory holds
            every episode, a repeated architecture again.
        intermediate_reward: what the decisions before the last are credited with: "none", 0; "length", the return
            divided by the number of decisions of the episode; "max_length", by the largest possible number.
        history: where a space publishes no state, the state is the number of decisions and the last so many of them,
            so that architectures which differ in earlier ones share values; None = all of them.
        redraws: how often an episode that ends in an architecture known already is drawn again before it is played,
            since a repeated query tells nothing new; 0, as published, plays every episode.
    """

    epsilon_schedule: Schedule = ((1.0, 200), (0.2, 1))
    counted: str = "episodes"
    learning_rate: float = 0.5
    discount: float = 1.0
    initial_value: float = 0.5
    batch_size: int = 8
    replay_draws: int = 10
    intermediate_reward: str = "none"
    history: int | None = 2
    redraws: int = 100

    def __post_init__(self) -> None:
        """Check the values; lists, as JSON has them, become tuples.

        Raises:
            InvalidArgument: a value outside its range.
        """
        schedule = self.epsilon_schedule
        fits = isinstance(schedule, (list, tuple)) and len(schedule) > 0 and all(map(_is_phase, schedule))
        allowed = "a list of pairs (epsilon in [0, 1], count of at least 1)"
        require(fits, "epsilon_schedule", schedule, allowed)
        object.__setattr__(self, "epsilon_schedule", tuple((float(epsilon), count) for epsilon, count in schedule))
        require(self.counted in COUNTED, "counted", self.counted, f"one of {', '.join(COUNTED)}")
        require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0 and at most 1")
        require(0 <= self.discount <= 1, "discount", self.discount, "between 0 and 1")
        require(np.isfinite(self.initial_value), "initial_value", self.initial_value, "a finite number")
        require_count("batch_size", self.batch_size)
        require_count("replay_draws", self.replay_draws, 0)
        require_count("redraws", self.redraws, 0)
        if self.history is not None:
            require_count("history", self.history)
        kinds = f"one of {', '.join(INTERMEDIATE_REWARDS)}"
        require(
            self.intermediate_reward in INTERMEDIATE_REWARDS, "intermediate_reward", self.intermediate_reward, kinds
        )

    def epsilon(self, count: int) -> float:
        """Return the epsilon after `count` architectures or episodes.

        >>> [QLearningConfig(epsilon_schedule=((1.0, 2), (0.1, 1))).epsilon(count) for count in range(5)]
        [1.0, 1.0, 0.1, 0.1, 0.1]
        """
        for epsilon, length in self.epsilon_schedule:
            if count < length:
                return epsilon
            count -= length
        return self.epsilon_schedule[-1][0]


def _is_phase(phase: object) -> bool:
    if not isinstance(phase, (list, tuple)) or len(phase) != 2:
        return False
    epsilon, count = phase
    numbers = isinstance(epsilon, (int, float)) and isinstance(count, int) and not isinstance(count, bool)
    return numbers and 0 <= epsilon <= 1 and count >= 1


@dataclass(frozen=True, eq=False)
class _Episode:
    """What one episode teaches.

    Attributes:
        states: row of the Q-table at every decision, int [T].
        actions: int [T].
        following: choices that were legal at the next decision, one array each; none behind the last.
        rewards: float [T].
    """

    states: list[int]
    actions: list[int]
    following: list[npt.NDArray[np.int64]]
    rewards: list[float]


class QLearning(Agent):
    """Epsilon-greedy on a table of values over `SearchSpace.states`, the state that each paper defines.

    For a space of which no paper defines one, the state is the position and the last decisions (`history`): a table
    over whole prefixes shares nothing between architectures and is no better than random search in 1,000 queries.

    An episode's values are updated from its end backwards, Q <- (1 - alpha) Q + alpha (r + gamma max Q'), the maximum
    over what was legal next; then those of episodes drawn from the memory. Ties are broken at random.

    Presets: ``metaqnn`` (alpha 0.01, 100 draws for every new architecture; the released configuration draws 128) and
    ``blockqnn`` (iterations of 64 episodes, 64 draws each, intermediate rewards). Of the latter, all values come from a
    port or from memory.
    """

    Config: ClassVar[type[QLearningConfig]] = QLearningConfig
    presets: ClassVar[Mapping[str, QLearningConfig]] = MappingProxyType(
        {
            "metaqnn": QLearningConfig(
                epsilon_schedule=METAQNN_SCHEDULE,
                counted="architectures",
                learning_rate=0.01,
                batch_size=1,
                replay_draws=100,
                redraws=0,
            ),
            "blockqnn": QLearningConfig(
                epsilon_schedule=BLOCKQNN_SCHEDULE,
                counted="episodes",
                learning_rate=0.01,
                batch_size=64,
                replay_draws=1,
                intermediate_reward="length",
                redraws=0,
            ),
        }
    )

    def __init__(self, envs: Envs, seed: int, config: QLearningConfig) -> None:
        """Start with an empty table."""
        super().__init__(envs, seed, config)
        self._rows: dict[tuple[int, ...], int] = {}
        self._values = np.full((0, self.space.max_choices), config.initial_value)
        self._memory: list[_Episode] = []
        self._legal: dict[bytes, npt.NDArray[np.int64]] = {}
        self._states: dict[Encoding, tuple[int, ...]] = {}
        self._episodes = 0
        self._architectures = 0
        self._played: set[Encoding] = set()
        """Canonical architectures of the episodes in the memory."""
        self._awaited: set[Encoding] = set()
        """Canonical architectures of the episodes whose returns are not known yet."""
        self._drawn: list[Encoding] = []
        self._position = 0

    # --- acting ------------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Probability of a random decision now."""
        counted = self._architectures if self.config.counted == "architectures" else self._episodes
        return self.config.epsilon(counted)

    def begin(self, num_envs: int) -> int:
        """Draw a batch of episodes: masks and states are those of the search space, so nothing must be played first."""
        self._position = 0
        self._drawn = []
        epsilon = self.epsilon
        for _ in range(num_envs):
            encoding = self._draw(epsilon)
            for _ in range(self.config.redraws):
                canonical = self.space.canonical(encoding)
                if canonical not in self._played and canonical not in self._awaited:
                    self._awaited.add(canonical)
                    break
                encoding = self._draw(epsilon)
            self._drawn.append(encoding)
        return num_envs

    def _draw(self, epsilon: float) -> Encoding:
        """Return an architecture whose every decision is random with probability epsilon, else of the highest value."""
        prefix: Encoding = ()
        while not (junction := self.space.junction(prefix)).complete:
            legal = self._legal_choices(junction.mask)
            if self.rng.random() >= epsilon:
                legal = self._best(self._state(prefix), legal)
            prefix = (*prefix, int(legal[int(self.rng.integers(len(legal)))]))
        return prefix

    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Return the next decision of every episode begun; 0 for those that are complete."""
        position = self._position
        self._position += 1
        return np.array(
            [drawn[position] if position < len(drawn) else 0 for drawn in self._drawn[: len(alive)]], np.int64
        )

    def _best(self, state: tuple[int, ...], legal: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the legal choices of the highest value; all of them in a state never seen."""
        row = self._rows.get(state)
        if row is None:
            return legal
        values = self._values[row, legal]
        return legal[values == values.max()]

    def _state(self, prefix: Encoding) -> tuple[int, ...]:
        """Return the state of a prefix: the published one, or its position and last decisions."""
        history = self.config.history
        if history is not None and not self.space.publishes_states:
            last = tuple(choice + 1 for choice in prefix[-history:])
            return (len(prefix), *(0,) * (history - len(last)), *last)
        state = self._states.get(prefix)
        if state is None:
            if len(self._states) >= _MOST_STATES:
                self._states.clear()
            (features,) = self.space.states(*self.space.pack([prefix])).tolist()
            state = self._states[prefix] = tuple(features)
        return state

    # --- learning ----------------------------------------------------------------------------------

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Update the values from new episodes, then from the memory."""
        for index in range(len(batch)):
            episode = self._episode(batch, index)
            self._memory.append(episode)
            self._know(episode)
            self._update(episode)
        self._episodes += len(batch)
        self._architectures += int(batch.first_seen.sum())
        draws = self.config.replay_draws * len(batch)
        for index in self.rng.integers(len(self._memory), size=draws).tolist():
            self._update(self._memory[index])
        return {"epsilon": self.epsilon, "return_mean": float(batch.returns.mean()), "states": float(len(self._rows))}

    def _know(self, episode: _Episode) -> None:
        """Remember the architecture of an episode; one that an illegal action ended has none."""
        try:
            canonical = self.space.canonical(tuple(episode.actions))
        except InvalidEncoding:
            return
        self._played.add(canonical)
        self._awaited.discard(canonical)

    def _episode(self, batch: EpisodeBatch, index: int) -> _Episode:
        """Return what an episode of a batch teaches."""
        length = int(batch.lengths[index])
        actions = batch.actions[index, :length].tolist()
        states = [self._state(tuple(actions[:position])) for position in range(length)]
        rewards = batch.rewards[index, :length].copy()
        if self.config.intermediate_reward != "none":
            shared = length if self.config.intermediate_reward == "length" else self.space.max_length
            rewards[:-1] += rewards.sum() / shared
        return _Episode(
            states=[self._row(state) for state in states],
            actions=actions,
            following=[self._legal_choices(mask) for mask in batch.masks[index, 1:length]],
            rewards=rewards.tolist(),
        )

    def _legal_choices(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return the numbers of the legal choices, shared between equal masks: a memory holds very many."""
        return self._legal.setdefault(mask.tobytes(), np.flatnonzero(mask))

    def _row(self, state: tuple[int, ...]) -> int:
        """Return the row of a state in the table, which grows where it is new."""
        row = self._rows.setdefault(state, len(self._rows))
        if row >= len(self._values):
            grown = np.full((max(64, 2 * row), self.space.max_choices), self.config.initial_value)
            grown[: len(self._values)] = self._values
            self._values = grown
        return row

    def _update(self, episode: _Episode) -> None:
        """Move the values of one episode, from its end backwards."""
        rate, discount, values = self.config.learning_rate, self.config.discount, self._values
        last = len(episode.actions) - 1
        for position in range(last, -1, -1):
            target = episode.rewards[position]
            if position < last:
                target += discount * values[episode.states[position + 1], episode.following[position]].max()
            state, action = episode.states[position], episode.actions[position]
            values[state, action] += rate * (target - values[state, action])

    # --- what was learnt ---------------------------------------------------------------------------

    @property
    def table(self) -> dict[tuple[int, ...], npt.NDArray[np.float64]]:
        """Values by state, float64 [C] each."""
        return {state: self._values[row].copy() for state, row in self._rows.items()}

    def policy(self) -> Agent:
        """Return an agent with the same table that plays every episode it draws."""
        frozen = copy.copy(self)
        frozen.rng = copy.deepcopy(self.rng)
        frozen.config = dataclasses.replace(self.config, redraws=0)
        return frozen

    def greedy(self) -> Greedy:
        """Return the architecture of the highest values, the first of equal choices, and the values along it."""
        prefix: Encoding = ()
        decided: list[Decided] = []
        while (decision := self.space.decision(prefix)) is not None:
            state = self._state(prefix)
            legal = np.flatnonzero(decision.mask)
            row = self._rows.get(state)
            values = np.full(len(legal), self.config.initial_value) if row is None else self._values[row, legal]
            labels = tuple(decision.labels[choice] for choice in legal.tolist())
            chosen = int(values.argmax())
            decided.append(Decided(labels[chosen], dict(zip(labels, values.tolist(), strict=True))))
            prefix = (*prefix, int(legal[chosen]))
        return Greedy(prefix, tuple(decided), "Q-value")

    def state_dict(self) -> dict[str, Any]:
        """Return generator, table, memory and counts."""
        return {
            **super().state_dict(),
            "states": np.array(list(self._rows), np.int64),
            "values": self._values[: len(self._rows)].copy(),
            "memory": [[list(episode.actions), list(episode.rewards)] for episode in self._memory],
            "episodes": self._episodes,
            "architectures": self._architectures,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self._rows = {tuple(features): row for row, features in enumerate(np.asarray(state["states"]).tolist())}
        self._values = np.array(state["values"], np.float64).reshape(len(self._rows), self.space.max_choices)
        self._memory = [self._remembered(actions, rewards) for actions, rewards in state["memory"]]
        self._played = set()
        for episode in self._memory:
            self._know(episode)
        self._episodes = state["episodes"]
        self._architectures = state["architectures"]

    def _remembered(self, actions: Sequence[int], rewards: Sequence[float]) -> _Episode:
        """Return an episode of the memory from what is stored of it."""
        prefixes = [tuple(actions[:position]) for position in range(len(actions))]
        following = [self._legal_choices(self.space.junction(prefix).mask) for prefix in prefixes[1:]]
        return _Episode(
            [self._row(self._state(prefix)) for prefix in prefixes], list(actions), following, list(rewards)
        )
