"""What the observation wrappers show, in single and in vector environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from wrappers.lockstep import (
    Plan,
    WrapEnv,
    WrapVectorEnv,
    assert_equals_singles,
    assert_spec_rebuilds,
    check_quietly,
    check_vector,
    every_id,
    every_mode,
    make,
    make_vec,
    plans,
    properties,
    small_single,
    small_vector,
)

from nas_gym import ENVIRONMENTS
from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces import Decision, Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import OPERATIONS
from nas_gym.wrappers import (
    BestSoFar,
    DictObservation,
    FlatOneHot,
    GraphObservation,
    PenaliseMasked,
    VectorBestSoFar,
    VectorDictObservation,
    VectorFlatOneHot,
    VectorGraphObservation,
    VectorPenaliseMasked,
)
from nas_gym.wrappers.observation import OTHER, graph_labels

SOFTMAX, CONV, POOL = 19, 0, 14
"""Actions of `NAS-MetaQNN-v0`; pooling is masked at the start."""

STACKS: dict[str, WrapEnv] = {
    "dict": DictObservation,
    "flat": FlatOneHot,
    "graph": GraphObservation,
    "best": lambda env: BestSoFar(FlatOneHot(env)),
    "best in a dict": lambda env: BestSoFar(DictObservation(env)),
}
every_pair = pytest.mark.parametrize(
    ("wrap_vector", "wrap_single"),
    [
        (VectorDictObservation, DictObservation),
        (VectorFlatOneHot, FlatOneHot),
        (VectorGraphObservation, GraphObservation),
        (lambda envs: VectorBestSoFar(VectorFlatOneHot(envs)), lambda env: BestSoFar(FlatOneHot(env))),
        (lambda envs: VectorBestSoFar(VectorDictObservation(envs)), lambda env: BestSoFar(DictObservation(env))),
    ],
    ids=list(STACKS),
)
every_stack = pytest.mark.parametrize("wrap", list(STACKS.values()), ids=list(STACKS))


class Counting(gymnasium.Env[Any, Any]):
    """Has whole numbers from 3 to 7 as observations."""

    observation_space = spaces.Discrete(5, start=3)
    action_space = spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.int64(3), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.int64(3 + action), 0.0, False, False, {}


@dataclass(frozen=True)
class Wide(SearchSpace):
    """Architectures of one decision with 500 choices."""

    name: ClassVar[str] = "wide"
    max_length: ClassVar[int] = 1
    max_choices: ClassVar[int] = 500
    labels: ClassVar[tuple[str, ...]] = tuple(f"layer {choice}" for choice in range(500))

    def decision(self, prefix: Encoding) -> Decision | None:
        return None if prefix else Decision(0, self.labels, ordered=False, mask=(True,) * 500)

    def decode(self, encoding: Encoding) -> Any:
        return encoding


class TestEqualsSingles:
    """A vector form equals Gymnasium's vector of single forms over random streams, masked actions included."""

    @every_pair
    @properties
    @given(plan=plans())
    def test_in_every_observation(self, plan: Plan, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """Last observations of the mode "SameStep" and partial resets are included."""
        assert_equals_singles(plan, wrap_vector, wrap_single)

    @properties
    @given(plan=plans())
    def test_around_masked_actions_that_are_ignored(self, plan: Plan) -> None:
        """Episodes that end without an encoding have graphs too."""
        assert_equals_singles(
            plan,
            lambda envs: VectorGraphObservation(VectorPenaliseMasked(envs, limit=2)),
            lambda env: GraphObservation(PenaliseMasked(env, limit=2)),
        )

    @settings(max_examples=15)
    @given(plan=plans())
    def test_for_other_observations(self, plan: Plan) -> None:
        """The published state is turned into one-hot features as well."""
        assert_equals_singles(plan, VectorFlatOneHot, FlatOneHot, observation="states")


class TestDict:
    """`DictObservation` and its vector form."""

    def test_the_mask_lies_beside_the_observation(self) -> None:
        """Both are what the environment gives, under their keys."""
        env = DictObservation(make())
        observation, info = env.reset()
        assert sorted(observation) == ["action_mask", "observation"]
        assert (observation["action_mask"].tolist(), observation["action_mask"].dtype) == (
            info["action_mask"].tolist(),
            np.int8,
        )

    def test_keys_are_free(self) -> None:
        """RLlib asks for "observations"."""
        env = DictObservation(make(), observation_key="observations", mask_key="mask")
        assert sorted(env.reset()[0]) == sorted(env.observation_space) == ["mask", "observations"]

    def test_the_mask_is_a_copy(self) -> None:
        """Writing into the observation changes neither the info nor what is legal."""
        env = DictObservation(make())
        observation, info = env.reset()
        observation["action_mask"][:] = 1
        assert not info["action_mask"].all() and not env.get_wrapper_attr("action_masks")().all()

    def test_vectors_of_single_environments_are_read_too(self) -> None:
        """Masks come from the infos where there is no method."""
        envs = VectorDictObservation(SyncVectorEnv([small_single] * 2))
        observations, info = envs.reset()
        assert observations["action_mask"].tolist() == info["action_mask"].tolist()

    @pytest.mark.parametrize(("wrap", "build"), [(DictObservation, make), (VectorDictObservation, make_vec)])
    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"observation_key": ""}, "observation_key must be a string"),
            ({"mask_key": 3}, "mask_key must be a string"),
            ({"mask_key": "observation"}, "must differ"),
        ],
    )
    def test_keys_are_checked(
        self, wrap: Callable[..., Any], build: Callable[[], Any], keys: dict[str, Any], message: str
    ) -> None:
        """They are two different names."""
        with pytest.raises(InvalidArgument, match=message):
            wrap(build(), **keys)


class TestFlatOneHot:
    """`FlatOneHot` and its vector form."""

    @every_id
    def test_it_equals_the_one_hot_observation_of_the_environment(self, name: str) -> None:
        """The wrapper and the argument `observation="one_hot"` show the same."""
        wrapped, argument = FlatOneHot(make(name)), make(name, observation="one_hot")
        assert wrapped.observation_space == argument.observation_space
        pairs = [(env.reset()[0], *(env.step(action)[0] for action in (1, 0, 2))) for env in (wrapped, argument)]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(*pairs, strict=True))

    def test_a_number_with_a_start_becomes_a_one(self) -> None:
        """Discrete spaces need not start at 0."""
        env = FlatOneHot(Counting())
        assert [env.reset()[0].tolist(), env.step(4)[0].tolist()] == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]

    @given(nvec=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
    def test_features_lie_one_after_the_other(self, nvec: list[int], data: st.DataObject) -> None:
        """Every feature of a MultiDiscrete space, with any start, has exactly one 1 in its own part."""
        start = [data.draw(st.integers(-3, 3)) for _ in nvec]
        env = Counting()
        env.observation_space = spaces.MultiDiscrete(nvec, start=start)  # type: ignore[assignment]
        values = np.array([data.draw(st.integers(low, low + size - 1)) for low, size in zip(start, nvec, strict=True)])
        parts = np.split(FlatOneHot(env).observation(values), np.cumsum(nvec)[:-1])
        assert [part.nonzero()[0].tolist() for part in parts] == [[value] for value in (values - start).tolist()]

    @pytest.mark.parametrize(("wrap", "build"), [(FlatOneHot, make), (VectorFlatOneHot, make_vec)])
    def test_other_observations_are_refused(self, wrap: Callable[..., Any], build: Callable[..., Any]) -> None:
        """A Box is flat already."""
        with pytest.raises(InvalidArgument, match=r"needs Discrete or MultiDiscrete observations, got Box"):
            wrap(build(observation="one_hot"))


class TestGraph:
    """`GraphObservation` and its vector form."""

    def test_it_shows_the_architecture_so_far(self) -> None:
        """Nodes are labels of `space.sketch`, links its edges."""
        env = GraphObservation(make())
        env.reset()
        graph = env.step(CONV)[0]
        assert [env.node_labels[node] for node in graph.nodes] == ["input", "C(8,1,1)", "?"]
        assert graph.edge_links.tolist() == [[0, 1], [1, 2]]

    def test_edges_have_labels_where_the_space_puts_operations_there(self) -> None:
        """In a cell, operations lie on the edges."""
        env = GraphObservation(make("NAS-Cell-v0"))
        env.reset()
        graph = env.step(3)[0]
        assert [env.edge_labels[edge] for edge in graph.edges] == ["nor_conv_3x3", *["?"] * 5]

    @pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name != "NAS-Cell-Improve-v0"])
    def test_the_vocabulary_knows_every_label_of_random_architectures(self, name: str) -> None:
        """No node and no edge of 50 other random walks has an unknown label."""
        env = GraphObservation(make(name))
        base: Any = env.unwrapped
        rng = np.random.default_rng(1)
        for _ in range(50):
            encoding = base.space.sample(rng)
            env.reset()
            graphs = [env.step(action)[0] for action in encoding]
            assert all(graph.nodes.all() and graph.edges.all() for graph in graphs)

    def test_where_architectures_are_edited_the_current_one_is_seen(self) -> None:
        """Every edge of a complete cell has its operation, before and after an edit."""
        env = GraphObservation(make("NAS-Cell-Improve-v0"))
        graph, info = env.reset(seed=0)
        cells = [([env.edge_labels[edge] for edge in graph.edges], info["encoding"])]
        edit = int(np.flatnonzero(info["action_mask"])[1])
        graph, _, _, _, info = env.step(edit)
        cells.append(([env.edge_labels[edge] for edge in graph.edges], info["encoding"]))
        assert [labels for labels, _ in cells] == [[OPERATIONS[choice] for choice in cell] for _, cell in cells]

    def test_the_vocabulary_knows_choices_that_are_rarely_made(self) -> None:
        """Every choice of a decision is tried once, however many there are."""
        nodes, _ = graph_labels(Wide())
        assert set(Wide().labels) <= set(nodes)

    def test_the_vocabulary_is_always_the_same(self) -> None:
        """Numbers mean the same labels in every process and every space of equal settings."""
        spaces_of = [small_single().space, small_vector().space]
        assert graph_labels(spaces_of[0]) == graph_labels(spaces_of[1])

    def test_a_vocabulary_can_be_given(self) -> None:
        """Labels that it lacks are the number 0, called "other"."""
        env = GraphObservation(make(), node_labels=["input", "?"], edge_labels=[""])
        env.reset()
        graph = env.step(CONV)[0]
        assert [env.node_labels[node] for node in graph.nodes] == ["input", OTHER, "?"]

    @pytest.mark.parametrize("labels", ["input", [1], ["a", "a"], [OTHER], 3])
    @pytest.mark.parametrize("argument", ["node_labels", "edge_labels"])
    def test_a_vocabulary_is_checked(self, argument: str, labels: Any) -> None:
        """It is a list of distinct strings without that of number 0."""
        with pytest.raises(InvalidArgument, match=argument):
            GraphObservation(make(), **{argument: labels})

    @pytest.mark.parametrize(
        ("wrap", "env"),
        [(GraphObservation, Counting()), (VectorGraphObservation, SyncVectorEnv([Counting] * 2))],
        ids=["single", "vector"],
    )
    def test_environments_of_other_projects_are_refused(self, wrap: Callable[..., Any], env: Any) -> None:
        """They have no search space to draw."""
        with pytest.raises(InvalidArgument, match="environment of nas-gym"):
            wrap(env)


class TestBestSoFar:
    """`BestSoFar` and its vector form."""

    def play(self, env: gymnasium.Env[Any, Any], actions: list[int]) -> tuple[float, float]:
        """Play an episode; return what is shown at its end, and its return."""
        env.reset()
        *_, last = [env.step(action) for action in actions]
        return float(last[0][-1]), float(last[1])

    def test_it_is_the_last_number_of_a_box(self) -> None:
        """Before the first episode it is `initial`, and the rest of the observation is unchanged."""
        env = BestSoFar(FlatOneHot(make()), initial=0.25)
        observation, _ = env.reset()
        assert (observation.dtype, observation[-1]) == (np.float32, np.float32(0.25))
        assert observation[:-1].tolist() == FlatOneHot(make()).reset()[0].tolist()

    def test_the_episode_that_ended_counts(self) -> None:
        """The last observation shows its return if it is the best."""
        shown, value = self.play(BestSoFar(FlatOneHot(make())), [CONV, SOFTMAX])
        assert shown == np.float32(value)

    def test_a_worse_episode_changes_nothing(self) -> None:
        """The best stays."""
        env = BestSoFar(FlatOneHot(make()))
        best, _ = self.play(env, [CONV, SOFTMAX])
        assert self.play(env, [POOL]) == (best, -1.0)

    def test_the_first_return_counts_even_below_initial(self) -> None:
        """`initial` is no return."""
        assert self.play(BestSoFar(FlatOneHot(make())), [POOL])[0] == -1.0

    def test_a_seed_makes_it_forget(self) -> None:
        """What follows a seed depends on nothing before it."""
        env = BestSoFar(FlatOneHot(make()))
        self.play(env, [CONV, SOFTMAX])
        assert env.reset(seed=0)[0][-1] == 0

    def test_rows_may_share_their_best(self) -> None:
        """With `shared` every row sees the best of all."""
        envs = VectorBestSoFar(VectorFlatOneHot(make_vec(2, "Disabled")), shared=True)
        envs.reset()
        envs.step([CONV, POOL])
        observations, rewards, *_ = envs.step([SOFTMAX, 0])
        assert observations[:, -1].tolist() == [np.float32(rewards[0])] * 2

    @pytest.mark.parametrize(
        ("wrap", "build"), [(BestSoFar, make), (VectorBestSoFar, make_vec)], ids=["single", "vector"]
    )
    def test_other_observations_are_refused(self, wrap: Callable[..., Any], build: Callable[[], Any]) -> None:
        """The message says which wrapper comes first."""
        with pytest.raises(InvalidArgument, match="FlatOneHot first"):
            wrap(build())

    @pytest.mark.parametrize("initial", [float("nan"), float("inf"), "0", None])
    def test_initial_is_a_finite_number(self, initial: Any) -> None:
        """Anything else is refused."""
        with pytest.raises(InvalidArgument, match="initial"):
            BestSoFar(FlatOneHot(make()), initial=initial)

    def test_a_key_that_is_taken_is_refused(self) -> None:
        """A Dict observation keeps what it has."""
        with pytest.raises(InvalidArgument, match="'action_mask'"):
            BestSoFar(DictObservation(make()), key="action_mask")

    def test_shared_is_true_or_false(self) -> None:
        """Anything else is refused."""
        with pytest.raises(InvalidArgument, match="shared"):
            VectorBestSoFar(VectorFlatOneHot(make_vec()), shared=1)  # type: ignore[arg-type]


class TestRest:
    """What holds for all of them."""

    @every_pair
    def test_vector_forms_keep_the_contract(self, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """They describe themselves as vectors of single forms do, and no two results share memory."""
        check_vector(wrap_vector, wrap_single)

    @every_id
    @every_stack
    def test_the_specification_rebuilds_the_stack(self, wrap: WrapEnv, name: str) -> None:
        """`gymnasium.make(env.spec)` makes the same wrappers, also from JSON."""
        env = wrap(make(name))
        assert_spec_rebuilds(env)
        assert gymnasium.make(env.spec or "").observation_space == env.observation_space

    @every_id
    @every_stack
    def test_gymnasium_finds_nothing(self, wrap: WrapEnv, name: str) -> None:
        """Gymnasium's checker is content."""
        check_quietly(wrap(make(name)))

    @every_mode
    @every_id
    @pytest.mark.parametrize("wrap", [VectorDictObservation, VectorFlatOneHot, VectorGraphObservation])
    def test_registered_vectors_show_elements_of_their_spaces(
        self, wrap: WrapVectorEnv, name: str, mode: AutoresetMode
    ) -> None:
        """Every observation, and every last one, lies in the space that is announced."""
        envs = wrap(make_vec(3, mode, name))
        rng = np.random.default_rng(0)
        base: Any = envs.unwrapped
        observations, _ = envs.reset(seed=0)
        for _ in range(30):
            assert observations in envs.observation_space
            actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in base.action_masks()])
            observations, _, terminated, _, info = envs.step(actions)
            for row in np.flatnonzero(info.get("_final_obs", [])):
                assert info["final_obs"][row] in envs.single_observation_space
            if mode is AutoresetMode.DISABLED and terminated.any():
                observations, _ = envs.reset(options={"reset_mask": terminated})
