"""The contract kit: every rule catches an object that breaks it, and correct objects pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.vector import AutoresetMode
from toys import STOP, ToySpace

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.mechanics import EpisodeState
from nas_gym.errors import InvalidAction
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Metric, Queries, Reference, Status
from nas_gym.evaluators.decorators import Cached
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Batch, Decision, Encoding, SearchSpace
from nas_gym.search_spaces.core import Junction, Lengths, Prefixes, Sketch
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.testing import (
    ENVIRONMENT_RULES,
    EVALUATOR_RULES,
    SEARCH_SPACE_RULES,
    VECTOR_RULES,
    ContractViolation,
    check_evaluator,
    check_nas_env,
    check_search_space,
    difference,
)

Step = tuple[Any, float, bool, bool, dict[str, Any]]


def sentence(rules: tuple[Callable[..., None], ...], name: str) -> str:
    """Return the sentence of the rule of this name."""
    return next((rule.__doc__ or "").strip() for rule in rules if rule.__name__ == f"_{name}")


def names(rules: tuple[Callable[..., None], ...]) -> set[str]:
    """Return the names of rules."""
    return {rule.__name__.removeprefix("_") for rule in rules}


# --- search spaces ---------------------------------------------------------------------------------


class OnlyItself(ToySpace):
    """Equals no copy of itself."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class ShortMasks(ToySpace):
    """Leaves the choices without a label out of the masks."""

    def decision(self, prefix: Encoding) -> Decision | None:
        """Return a decision whose mask is as long as its labels."""
        found = super().decision(prefix)
        return found and Decision(found.kind, found.labels, found.ordered, found.mask[: len(found.labels)])


class DeadEnd(ToySpace):
    """Has an unfinished prefix without a legal choice."""

    def decision(self, prefix: Encoding) -> Decision | None:
        """Return a decision that masks everything after two decisions."""
        found = super().decision(prefix)
        mask = () if found is None else tuple(legal and len(prefix) < 2 for legal in found.mask)
        return found and Decision(found.kind, found.labels, found.ordered, mask)


class TooLong(ToySpace):
    """Goes on beyond its own largest length."""

    max_length = 3


class ForgetfulJunction(ToySpace):
    """Knows no masks in the form for single steps."""

    def junction(self, prefix: Encoding) -> Junction:
        """Return a junction that allows everything."""
        return Junction.of((True,) * self.max_choices, super().junction(prefix).complete)


class OnesInArrays(ToySpace):
    """Knows no masks in arrays."""

    def masks(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return that everything is legal."""
        return np.ones((len(lengths), self.max_choices), np.bool_)


class RowsAsLists(ToySpace):
    """Gives the rows of a batch as lists."""

    def encodings(self, batch: Batch) -> npt.NDArray[np.object_]:
        """Return an array of lists."""
        result = np.empty(len(batch), dtype=object)
        for index, row in enumerate(super().encodings(batch).tolist()):
            result[index] = list(row)
        return result


class ObservesTooMuch(ToySpace):
    """Observes values beyond its own sizes."""

    def observe(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return values that are ten too large."""
        return super().observe(prefixes, lengths) + 10


class SamplesIllegally(ToySpace):
    """Draws an encoding that the grammar forbids."""

    def sample(self, rng: np.random.Generator) -> Encoding:
        """Return the chain without layers."""
        return (STOP,)


class AcceptsEverything(ToySpace):
    """Validates nothing."""

    def validate(self, encoding: Encoding) -> Encoding:
        """Return what was given."""
        return tuple(encoding)


class EnumeratesTwice(ToySpace):
    """Gives every encoding two times."""

    def enumerate(self) -> Iterator[Encoding]:
        """Iterate over everything and then again."""
        yield from super().enumerate()
        yield from super().enumerate()


class OneCode(ToySpace):
    """Has the same code for every encoding."""

    def code(self, encoding: Encoding) -> int:
        """Return 7."""
        return 7


class RestlessCanonical(ToySpace):
    """Represents every encoding by the next one."""

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the next encoding in the order of `enumerate`."""
        everything = list(self.enumerate())
        return everything[(everything.index(self.validate(encoding)) + 1) % len(everything)]


class LosesTheNotation(ToySpace):
    """Writes every encoding as the same text."""

    def to_string(self, encoding: Encoding) -> str:
        """Return the notation of one architecture."""
        self.validate(encoding)
        return "pool stop"


class DecodesToObjects(ToySpace):
    """Decodes into something that is no value."""

    def decode(self, encoding: Encoding) -> object:
        """Return a new object."""
        self.validate(encoding)
        return object()


class SketchesBackwards(ToySpace):
    """Draws an edge from the output to the input."""

    def sketch(self, prefix: Encoding) -> Sketch:
        """Return a graph with an edge backwards."""
        return Sketch(("input", "output"), ((1, 0, ""),))


class OwnNeighbour(ToySpace):
    """Counts an encoding among its own neighbours."""

    def neighbours(self, encoding: Encoding) -> list[Encoding]:
        """Return the neighbours and the encoding itself."""
        return [*super().neighbours(encoding), encoding]


BROKEN_SPACES: list[tuple[str, type[SearchSpace]]] = [
    ("space_is_a_value", OnlyItself),
    ("grammar_is_well_formed", ShortMasks),
    ("grammar_is_well_formed", DeadEnd),
    ("grammar_is_well_formed", TooLong),
    ("junctions_equal_the_grammar", ForgetfulJunction),
    ("arrays_equal_the_grammar", OnesInArrays),
    ("packing_is_invertible", RowsAsLists),
    ("observations_lie_inside", ObservesTooMuch),
    ("samples_are_legal", SamplesIllegally),
    ("illegal_encodings_are_refused", AcceptsEverything),
    ("enumeration_is_exact", EnumeratesTwice),
    ("codes_identify", OneCode),
    ("canonical_is_a_projection", RestlessCanonical),
    ("notation_round_trips", LosesTheNotation),
    ("decoding_gives_values", DecodesToObjects),
    ("sketches_are_graphs", SketchesBackwards),
    ("neighbours_are_near", OwnNeighbour),
]


@pytest.mark.parametrize(("rule", "space"), BROKEN_SPACES, ids=[space.__name__ for _, space in BROKEN_SPACES])
def test_a_broken_space_is_caught(rule: str, space: type[SearchSpace]) -> None:
    """The violation quotes the rule that the space breaks."""
    with pytest.raises(ContractViolation) as caught:
        check_search_space(space())
    assert caught.value.rule == sentence(SEARCH_SPACE_RULES, rule)


@pytest.mark.parametrize("space", [ToySpace(), NASBench201Space()], ids=["toy", "nas_bench_201"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_correct_space_passes(space: SearchSpace, seed: int | None) -> None:
    """Whatever the generator of the witnesses."""
    check_search_space(space, None if seed is None else np.random.default_rng(seed))


# --- evaluators ------------------------------------------------------------------------------------


class NothingToSearch(SyntheticEvaluator):
    """Holds every metric out."""

    metrics: Mapping[str, Metric] = {"valid_accuracy": Metric("maximize", "fraction", held_out=True)}


class WideStatus(SyntheticEvaluator):
    """Answers with a status of eight bytes."""

    def evaluate(self, queries: Queries) -> Evaluations:
        """Return status as int64."""
        found = super().evaluate(queries)
        return Evaluations(found.status.astype(np.int64), found.metrics, found.cost_seconds)


class LeaksHeldOut(SyntheticEvaluator):
    """Answers with the held-out metric."""

    def evaluate(self, queries: Queries) -> Evaluations:
        """Return one metric too many."""
        found = super().evaluate(queries)
        metrics = {**found.metrics, "test_accuracy": np.zeros(len(found))}
        return Evaluations(found.status, metrics, found.cost_seconds)


class FailsSilently(SyntheticEvaluator):
    """Calls a failure a success."""

    def evaluate(self, queries: Queries) -> Evaluations:
        """Return NaN with the status ok."""
        found = super().evaluate(queries)
        metrics = {name: np.full_like(column, np.nan) for name, column in found.metrics.items()}
        return Evaluations(found.status, metrics, found.cost_seconds)


class OtherWhenAlone(SyntheticEvaluator):
    """Answers single queries differently."""

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Return another cost than a batch does."""
        return super().evaluate_one(encoding, fidelity, parent)._replace(cost_seconds=1.0)


class OrderMatters(SyntheticEvaluator):
    """Makes every query more expensive than the one before."""

    asked = 0

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate one after the other."""
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Return a cost that counts the queries."""
        self.asked += 1
        return super().evaluate_one(encoding, fidelity)._replace(cost_seconds=float(self.asked))

    def reset_repeats(self) -> None:
        """Start again."""
        self.asked = 0


class SecretNoise(OrderMatters):
    """Calls itself deterministic and answers a repeated query differently."""

    def __init__(self, space: SearchSpace) -> None:
        """Remember no query."""
        super().__init__(space)
        self.repeats: dict[Encoding, int] = {}

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Return a cost that counts the repeats of this architecture."""
        self.repeats[encoding] = self.repeats.get(encoding, 0) + 1
        cost = float(self.repeats[encoding])
        return SyntheticEvaluator.evaluate_one(self, encoding, fidelity)._replace(cost_seconds=cost)

    def reset_repeats(self) -> None:
        """Forget the repeats."""
        self.repeats.clear()


class AnyFidelity(SyntheticEvaluator):
    """Has no fidelities and accepts one."""

    def check_fidelity(self, fidelity: int) -> int:
        """Return what was given."""
        return fidelity


class RestlessIdentity(SyntheticEvaluator):
    """Has an identity with another identity."""

    def identity(self, encoding: Encoding) -> Encoding:
        """Return the next encoding."""
        return RestlessCanonical().canonical(encoding)


class ShortReport(SyntheticEvaluator):
    """Reports no held-out metric."""

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return the search-time metrics."""
        return dict(self.evaluate_one(encoding).metrics)


class UpsideDown(SyntheticEvaluator):
    """Calls the smallest value of everything the best."""

    def reference(self, metric: str) -> Reference:
        """Return an order for metrics to minimize."""
        return Reference(0.0, 0.5, 1.0)


class FreeFailures(SyntheticEvaluator):
    """Does not know what a failure costs."""

    def mean_cost(self, fidelity: int | None = None) -> float:
        """Return NaN."""
        return float("nan")


BROKEN_EVALUATORS: list[tuple[str, type[SyntheticEvaluator]]] = [
    ("evaluator_is_described", NothingToSearch),
    ("answers_are_columns", WideStatus),
    ("answers_are_columns", LeaksHeldOut),
    ("failures_are_data", FailsSilently),
    ("one_equals_a_batch", OtherWhenAlone),
    ("order_does_not_matter", OrderMatters),
    ("repeats_follow_the_declaration", SecretNoise),
    ("fidelities_are_checked", AnyFidelity),
    ("identity_is_a_projection", RestlessIdentity),
    ("reports_hold_everything", ShortReport),
    ("references_are_ordered", UpsideDown),
    ("failed_queries_have_a_cost", FreeFailures),
]


@pytest.mark.parametrize(
    ("rule", "evaluator"), BROKEN_EVALUATORS, ids=[found.__name__ for _, found in BROKEN_EVALUATORS]
)
def test_a_broken_evaluator_is_caught(rule: str, evaluator: type[SyntheticEvaluator]) -> None:
    """The violation quotes the rule that the evaluator breaks."""
    with pytest.raises(ContractViolation) as caught:
        check_evaluator(evaluator(ToySpace()))
    assert caught.value.rule == sentence(EVALUATOR_RULES, rule)


@pytest.mark.parametrize(
    "make",
    [
        lambda table: SyntheticEvaluator(ToySpace()),
        lambda table: SyntheticEvaluator(NASBench201Space(), evaluation_seed=3),
        lambda table: TabularEvaluator(NASBench201Space(), table),
        lambda table: TabularEvaluator(NASBench201Space(), table, noise="sample"),
        lambda table: Cached(TabularEvaluator(NASBench201Space(), table, noise="sample")),
    ],
    ids=["synthetic toy", "synthetic cell", "table", "noisy table", "cached noisy table"],
)
def test_a_correct_evaluator_passes(make: Callable[[str], Evaluator], small_table: Path) -> None:
    """Deterministic and noisy ones, with and without fidelities."""
    check_evaluator(make(str(small_table)), samples=3)


def test_an_evaluator_that_builds_networks_passes() -> None:
    """The evaluator that counts parameters keeps the contract."""
    cost = pytest.importorskip("nas_gym.evaluators.cost", reason="needs torch", exc_type=ImportError)
    check_evaluator(cost.CostEvaluator(NASBench201Space()), samples=2)


class Stopwatch(SyntheticEvaluator):
    """Measures its cost by a clock."""

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Return a cost that never repeats."""
        return super().evaluate_one(encoding, fidelity)._replace(cost_seconds=np.random.default_rng().random())


def test_measured_values_need_not_repeat() -> None:
    """What the caller names as measured is left out of the comparisons."""
    check_evaluator(Stopwatch(ToySpace()), measured=["cost_seconds"])


# --- environments ----------------------------------------------------------------------------------


class BooleanMasks(ConstructionEnv):
    """Gives masks of another type."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Return a boolean mask."""
        observation, info = super().reset(**kwargs)
        return observation, {"action_mask": info["action_mask"].astype(np.bool_)}


class StuckEnv(ConstructionEnv):
    """Leaves no legal action after the first step."""

    def step(self, action: Any) -> Step:
        """Mask everything."""
        *step, info = super().step(action)
        info["action_mask"] *= 0
        return *step, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return the same."""
        return super().action_masks() if not self._prefix else np.zeros(self.space.max_choices, np.bool_)


class EndlessEnv(ConstructionEnv):
    """Never says that an episode is over."""

    def step(self, action: Any) -> Step:
        """Begin again in silence."""
        observation, reward, _, truncated, info = super().step(action)
        if self._over:
            self._resume((), over=False)
            info = {"action_mask": self._junction.mask_int8.copy()}
        return observation, reward, False, truncated, info


class NarrowObservations(ConstructionEnv):
    """Gives observations of another type than the space says."""

    def step(self, action: Any) -> Step:
        """Return int32."""
        observation, *rest = super().step(action)
        return observation.astype(np.int32), *rest


class ClosedEnds(ConstructionEnv):
    """Masks everything at the end."""

    def step(self, action: Any) -> Step:
        """Return zeros with the last step."""
        observation, reward, terminated, truncated, info = super().step(action)
        info["action_mask"] *= not terminated
        return observation, reward, terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return the same."""
        return super().action_masks() & (not self._over)


class EarlyReward(ConstructionEnv):
    """Rewards every step."""

    def step(self, action: Any) -> Step:
        """Return a little more."""
        observation, reward, *rest = super().step(action)
        return observation, reward + 0.1, *rest


class CostsNothing(ConstructionEnv):
    """Leaves the cost out of the last info."""

    def step(self, action: Any) -> Step:
        """Return an info without cost."""
        *step, info = super().step(action)
        info.pop("cost_seconds", None)
        return *step, info


class TellsTheTest(ConstructionEnv):
    """Shows the held-out metrics in the info."""

    def step(self, action: Any) -> Step:
        """Return the report with the last step."""
        *step, info = super().step(action)
        if info.get("status") == "ok":
            info["report"] = self.evaluator.report(info["encoding"])
        return *step, info


class Moody(ConstructionEnv):
    """Rewards later episodes better."""

    def step(self, action: Any) -> Step:
        """Return a reward that depends on the queries so far."""
        observation, reward, terminated, *rest = super().step(action)
        return observation, reward + 0.001 * self.counter.queries * terminated, terminated, *rest


class OneBuffer(ConstructionEnv):
    """Returns the same observation array again and again."""

    def step(self, action: Any) -> Step:
        """Return the tracker's own array."""
        _, *rest = super().step(action)
        return self._tracker.buffer, *rest


class LenientEnd(ConstructionEnv):
    """Rewards a masked action with 0."""

    def _end_invalid(self) -> Step:
        observation, _, *rest = super()._end_invalid()
        return observation, 0.0, *rest


class ClipsActions(ConstructionEnv):
    """Takes the first action instead of one outside the space."""

    def step(self, action: Any) -> Step:
        """Never raise InvalidAction."""
        try:
            return super().step(action)
        except InvalidAction:
            return super().step(int(np.argmax(self.action_masks())))


class ResetsItself(ConstructionEnv):
    """Begins a new episode where none is going on."""

    def step(self, action: Any) -> Step:
        """Never raise EpisodeOver."""
        if self._over:
            self.reset()
        return super().step(action)


class Amnesia(ConstructionEnv):
    """Restores an empty architecture."""

    def set_state(self, state: EpisodeState) -> None:
        """Forget the prefix."""
        super().set_state(EpisodeState((), state.over, state.fidelity))


class IgnoresOptions(ConstructionEnv):
    """Takes any option and does nothing with it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Drop the options."""
        return super().reset(seed=seed)


class CountsTwice(ConstructionEnv):
    """Counts every step two times."""

    def step(self, action: Any) -> Step:
        """Count once more."""
        step = super().step(action)
        self.counter.environment_steps += 1
        return step


class NoBudget(ConstructionEnv):
    """Spends more than the budget."""

    def step(self, action: Any) -> Step:
        """Remove the budget."""
        self.counter.budget = None
        return super().step(action)


BROKEN_ENVIRONMENTS: list[tuple[str, type[ConstructionEnv]]] = [
    ("masks_are_given", BooleanMasks),
    ("unfinished_episodes_go_on", StuckEnv),
    ("spaces_hold_what_is_returned", NarrowObservations),
    ("finished_masks_are_free", ClosedEnds),
    ("rewards_come_at_the_end", EarlyReward),
    ("final_infos_are_complete", CostsNothing),
    ("held_out_metrics_stay_hidden", TellsTheTest),
    ("seeds_determine_episodes", Moody),
    ("returned_data_is_fresh", OneBuffer),
    ("illegal_actions_end_the_episode", LenientEnd),
    ("outside_actions_raise", ClipsActions),
    ("steps_need_an_episode", ResetsItself),
    ("states_restore_episodes", Amnesia),
    ("options_are_checked", IgnoresOptions),
    ("counters_are_exact", CountsTwice),
    ("budgets_are_exact", NoBudget),
]


def make(cls: type[Any], *extra: Any, **kwargs: Any) -> Any:
    """Return an environment of a class over the toy space."""
    space = ToySpace()
    return cls(space, SyntheticEvaluator(space), Accuracy(), *extra, **kwargs)


@pytest.mark.parametrize(("rule", "env"), BROKEN_ENVIRONMENTS, ids=[env.__name__ for _, env in BROKEN_ENVIRONMENTS])
def test_a_broken_environment_is_caught(rule: str, env: type[ConstructionEnv]) -> None:
    """The violation quotes the rule that the environment breaks."""
    with pytest.raises(ContractViolation) as caught:
        check_nas_env(lambda: make(env))
    assert caught.value.rule == sentence(ENVIRONMENT_RULES, rule)


def test_a_specification_of_something_else_is_caught() -> None:
    """An environment whose specification makes another one breaks the last rule."""

    def make_env() -> gymnasium.Env[Any, Any]:
        env = gymnasium.make("NAS-Cell-v0", evaluator="synthetic", evaluation_seed=1).unwrapped
        env.spec = gymnasium.make("NAS-Cell-v0", evaluator="synthetic", evaluation_seed=2).spec
        return env

    with pytest.raises(ContractViolation) as caught:
        check_nas_env(make_env, episodes=1)
    assert caught.value.rule == sentence(ENVIRONMENT_RULES, "specifications_round_trip")


# --- vector environments ---------------------------------------------------------------------------

VectorStep = tuple[Any, Any, Any, Any, dict[str, Any]]


class NoMode(ConstructionVectorEnv):
    """Does not publish its auto-reset mode."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Remove it from the metadata."""
        super().__init__(*args, **kwargs)
        self.metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}


class NoPresence(ConstructionVectorEnv):
    """Leaves out who has an action mask."""

    def step(self, actions: Any) -> VectorStep:
        """Return an info with one key less."""
        *step, info = super().step(actions)
        del info["_action_mask"]
        return *step, info


class FreeMasks(ConstructionVectorEnv):
    """Calls everything legal when asked."""

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return ones."""
        return np.ones_like(super().action_masks())


class OneRewardBuffer(ConstructionVectorEnv):
    """Returns the same array of rewards again and again."""

    def step(self, actions: Any) -> VectorStep:
        """Write the rewards into one buffer."""
        observations, rewards, *rest = super().step(actions)
        self.buffer = getattr(self, "buffer", np.zeros(self.num_envs))
        self.buffer[:] = rewards
        return observations, self.buffer, *rest


class CountsRows(ConstructionVectorEnv):
    """Counts a batch as one step."""

    def step(self, actions: Any) -> VectorStep:
        """Count one step for all rows."""
        before = self.counter.environment_steps
        step = super().step(actions)
        self.counter.environment_steps = before + 1
        return step


BROKEN_VECTORS: list[tuple[str, type[ConstructionVectorEnv]]] = [
    ("vector_describes_itself", NoMode),
    ("vector_equals_single", NoPresence),
    ("vector_masks_equal_single", FreeMasks),
    ("vector_data_is_fresh", OneRewardBuffer),
    ("vector_counts_like_single", CountsRows),
]


@pytest.mark.parametrize(("rule", "envs"), BROKEN_VECTORS, ids=[envs.__name__ for _, envs in BROKEN_VECTORS])
def test_a_broken_vector_environment_is_caught(rule: str, envs: type[ConstructionVectorEnv]) -> None:
    """The violation quotes the rule that the vector environment breaks."""

    def make_vec_env(num_envs: int, mode: AutoresetMode) -> ConstructionVectorEnv:
        return make(envs, num_envs=num_envs, autoreset_mode=mode)

    with pytest.raises(ContractViolation) as caught:
        check_nas_env(lambda: make(ConstructionEnv), make_vec_env, episodes=1)
    assert caught.value.rule == sentence(VECTOR_RULES, rule)


# --- the kit itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        (SEARCH_SPACE_RULES, [rule for rule, _ in BROKEN_SPACES]),
        (EVALUATOR_RULES, [rule for rule, _ in BROKEN_EVALUATORS]),
        (ENVIRONMENT_RULES, [*(rule for rule, _ in BROKEN_ENVIRONMENTS), "specifications_round_trip"]),
        (VECTOR_RULES, [rule for rule, _ in BROKEN_VECTORS]),
    ],
    ids=["search spaces", "evaluators", "environments", "vector environments"],
)
def test_every_rule_is_shown_to_catch_something(rules: tuple[Callable[..., None], ...], broken: list[str]) -> None:
    """A rule without a broken object above would be untested."""
    assert set(broken) == names(rules)


def test_an_endless_episode_is_caught() -> None:
    """An environment that never ends breaks a rule instead of hanging the check."""
    with pytest.raises(ContractViolation, match="an end within"):
        check_nas_env(lambda: make(EndlessEnv), episodes=1)


def test_a_violation_says_what_and_where() -> None:
    """Rule, expectation, what was received and the witness are in the message and in attributes."""
    with pytest.raises(ContractViolation) as caught:
        check_search_space(DeadEnd())
    violation = caught.value
    assert (violation.expected, len(violation.witness["prefix"])) == ("at least one legal choice", 2)
    assert all(
        part in str(violation) for part in (violation.rule, violation.expected, repr(violation.received), "prefix=")
    )


class Crashing(SyntheticEvaluator):
    """Raises instead of reporting a failure."""

    def evaluate(self, queries: Queries) -> Evaluations:
        """Raise."""
        raise ZeroDivisionError("no such luck")


def test_an_unexpected_exception_breaks_the_rule_that_met_it() -> None:
    """The violation carries the exception as its cause."""
    with pytest.raises(ContractViolation, match="no such luck") as caught:
        check_evaluator(Crashing(ToySpace()))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (np.int8(1), np.int64(1)),
        (np.zeros(2, np.int8), np.zeros(2, np.int64)),
        (np.zeros((2, 1)), np.zeros(2)),
        (np.zeros(2), np.array([0.0, 1e-12])),
        ({"a": 1}, {"a": 1, "_a": 1}),
        ([1, 2], [1]),
        ((1,), [1]),
        (float("nan"), 0.0),
        ({"a": [np.array([None, (1, 2)], dtype=object)]}, {"a": [np.array([None, (1, 3)], dtype=object)]}),
    ],
    ids=["type", "scalar type", "dtype", "shape", "last digits", "keys", "length", "container", "nan", "nested"],
)
def test_a_difference_is_found(left: object, right: object) -> None:
    """Type, layout, dtype, shape and content all count."""
    assert difference(left, right) is not None


@pytest.mark.parametrize(
    "value",
    [float("nan"), np.array([np.nan, 1.0]), {"a": np.array([None, (1, 2)], dtype=object)}, Status.OK, [(1, "x"), None]],
    ids=["nan", "nan in an array", "objects", "status", "nested"],
)
def test_equal_values_do_not_differ(value: object) -> None:
    """NaN equals NaN."""
    assert difference(value, value) is None
