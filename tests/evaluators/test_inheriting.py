"""Children that inherit trained weights, on the digits: whose weights, under which key, and when they are gone."""

from __future__ import annotations

import dataclasses
import math
import pickle  # noqa: TID251 - evaluators travel to the processes of vector environments
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym.errors import FidelityError, InvalidArgument, StoreError, UnknownName
from nas_gym.evaluators import Evaluation, Queries, Status, make_evaluator
from nas_gym.evaluators.decorators import Cached
from nas_gym.evaluators.inheriting import InheritingEvaluator, inheriting_evaluator
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import SCRATCH
from nas_gym.networks.morph import load_network, load_parent
from nas_gym.search_spaces.eas import EASDenseSpace, EASSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

space = EASSpace(
    blocks=((8,),), units=(16,), wider=1, deeper=1, filter_levels=(8, 16), unit_levels=(16, 32), max_layers=2
)
WIDE = space.canonical((1, 1, 0, 0, 1))
OTHER = space.canonical((0, 0, 1, 0))
QUICK: dict[str, Any] = {"workers": 0, "device": "cpu", "epochs": 1, "start_epochs": 8, "learning_rate": 0.02}


def evaluator(**settings: Any) -> InheritingEvaluator:
    """Return a new evaluator in this process."""
    return inheriting_evaluator(space, **{**QUICK, **settings})


def untimed(answer: Evaluation) -> dict[str, float]:
    """Return the metrics that do not depend on the speed and the memory of the machine."""
    return {name: value for name, value in answer.metrics.items() if name not in ("train_seconds", "peak_memory_bytes")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with a trained start network and one child."""
    path = tmp_path_factory.mktemp("inheriting") / "store.sqlite"
    one = evaluator(store=path)
    assert one.evaluate_one(WIDE).status is Status.OK
    one.close()
    return path


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of it of the test's own."""
    with EvaluationStore(tmp_path / "copy.sqlite") as copy, EvaluationStore(trained) as original:
        copy.merge(original)
    return tmp_path / "copy.sqlite"


# --- inheriting ------------------------------------------------------------------------------------


def test_a_child_begins_where_its_parent_ended(store: Path) -> None:
    """After one epoch, from scratch hardly better than chance, it is about as good as its parent was after eight."""
    one = evaluator(store=store)
    start = one.store.get(one.start_key)
    scratch = make_evaluator("training", space, workers=0, device="cpu", epochs=1, learning_rate=0.02)
    answers = [found.evaluate_one(OTHER).metrics["valid_accuracy"] for found in (one, scratch)]
    assert start is not None
    assert answers[0] > start.metrics["valid_accuracy"] - 0.05 > answers[1] + 0.2


def test_the_size_is_that_of_the_child(store: Path) -> None:
    """Parameters and computation of the grown network."""
    answer = evaluator(store=store).evaluate_one(WIDE)
    cost = make_evaluator("cost", space, input_shape=(1, 8, 8)).evaluate_one(WIDE)
    names = ("parameters", "multiply_adds")
    assert [answer.metrics[name] for name in names] == [cost.metrics[name] for name in names]


def test_the_weights_that_a_child_leaves_are_its_own(store: Path) -> None:
    """A network with its graph, which says what it is."""
    one = evaluator(store=store)
    artifact = one.evaluate_one(WIDE).artifact
    path = one.store.artifact_path(str(artifact))
    assert path is not None
    graph, _ = load_network(path)
    assert [graph.shapes[name][0] for name in ("conv1", "fc1")] == [16, 32]


def test_dense_children_inherit_too() -> None:
    """A DenseNet grows and is trained."""
    dense = EASDenseSpace(wider=1, deeper=1)
    answer = inheriting_evaluator(dense, **{**QUICK, "start_epochs": 1}).evaluate_one(dense.canonical((1, 0, 1, 2, 0)))
    assert answer.status is Status.OK


def test_the_noise_is_part_of_the_key(store: Path) -> None:
    """Another noise is another training."""
    one, other = evaluator(store=store), evaluator(store=store, wider_noise=0)
    other.evaluate_one(WIDE)
    assert one.key(WIDE, 1, 0) != other.key(WIDE, 1, 0)
    assert other.trained_epochs == 1


def test_a_batch_gives_what_single_queries_give(store: Path) -> None:
    """In its order."""
    batch = Queries.of(space, [OTHER, WIDE])
    found = evaluator(store=store).evaluate(batch)
    single = evaluator()
    expected = [untimed(single.evaluate_one(one)) for one in (OTHER, WIDE)]
    assert [untimed(found.row(index)) for index in range(2)] == expected


def test_a_repetition_is_another_training(store: Path) -> None:
    """Other units are repeated, the images come in another order."""
    one = evaluator(store=store)
    assert untimed(one.evaluate_one(WIDE)) != untimed(one.evaluate_one(WIDE))


def test_more_epochs_continue_the_training(store: Path) -> None:
    """The first of three epochs is not trained twice, and a child without a pause ends likewise."""
    paused = evaluator(store=store, epochs=3)
    paused.evaluate_one(OTHER, fidelity=1)
    first = paused.trained_epochs
    answer = paused.evaluate_one(OTHER)
    assert (first, paused.trained_epochs) == (1, 3)
    with EvaluationStore(store.with_name("other.sqlite")) as fresh:
        whole = evaluator(store=fresh, epochs=3)
        assert untimed(whole.evaluate_one(OTHER)) == untimed(answer)


def test_a_report_has_test_metrics(store: Path) -> None:
    """Of one more training, with inherited weights."""
    report = evaluator(store=store).report(WIDE)
    assert report["test_accuracy"] > 0.5


# --- the store -------------------------------------------------------------------------------------


def test_the_start_network_is_trained_once() -> None:
    """Eight epochs before the first child, none before the second."""
    one = evaluator()
    epochs = []
    for child in (WIDE, OTHER):
        one.evaluate_one(child)
        epochs.append(one.trained_epochs)
    assert epochs == [9, 10]


def test_what_the_store_holds_is_not_trained_again(store: Path) -> None:
    """Neither the start network nor the child, in another process."""
    one = evaluator(store=store)
    first = one.evaluate_one(WIDE)
    assert one.trained_epochs == 0
    assert first.metrics["valid_accuracy"] > 0


def test_inherited_and_untrained_weights_have_other_keys(store: Path) -> None:
    """The same network from scratch is another evaluation."""
    one = evaluator(store=store)
    keys = [key for key, _ in one.store.rows() if key.encoding == WIDE]
    assert [key.parent for key in keys] == [one.start_weights]
    scratch = make_evaluator("training", space, **{n: v for n, v in QUICK.items() if n != "start_epochs"}, store=store)
    scratch.evaluate_one(WIDE)
    assert [key.parent for key, _ in one.store.rows() if key.encoding == WIDE] == [one.start_weights, SCRATCH]


def test_a_process_that_dies_before_its_answer_is_committed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the start network are a file without a row: the next process trains again and goes on."""
    one = evaluator(store=tmp_path / "store.sqlite")

    def die(*_: object) -> None:
        raise StoreError("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(one.store, "put", die)
        with pytest.raises(StoreError, match="lights"):
            one.evaluate_one(WIDE)
    one.close()
    again = evaluator(store=tmp_path / "store.sqlite")
    assert again.evaluate_one(WIDE).status is Status.OK
    assert again.store.verify() == []


def test_it_travels_to_other_processes_without_what_it_holds(store: Path) -> None:
    """A copy answers the same from the same store."""
    one = evaluator(store=store)
    answer = one.evaluate_one(WIDE)
    copy = pickle.loads(pickle.dumps(one))
    copy.reset_repeats()
    assert copy.evaluate_one(WIDE).metrics == answer.metrics


@pytest.mark.slow
def test_workers_give_what_this_process_gives(store: Path) -> None:
    """Bit by bit."""
    one = evaluator(store=store.with_name("workers.sqlite"), workers=2)
    try:
        found = untimed(one.evaluate_one(OTHER))
    finally:
        one.close()
    assert found == untimed(evaluator().evaluate_one(OTHER))


# --- parents ---------------------------------------------------------------------------------------


def test_a_parent_that_is_gone_fails_its_children_and_nothing_else(store: Path) -> None:
    """The message names the file; what is stored is still answered, and the file may come back."""
    one = evaluator(store=store)
    path = one.store.artifact_path(str(one.start_weights))
    assert path is not None
    hidden = path.rename(path.with_name("hidden"))
    answer = one.evaluate_one(OTHER)
    assert (answer.status, one.trained_epochs) == (Status.BUILD_ERROR, 0)
    assert str(path) in answer.message
    assert math.isnan(answer.metrics["valid_accuracy"])
    assert one.evaluate_one(WIDE).status is Status.OK
    hidden.rename(path)
    one.reset_repeats()
    assert one.evaluate_one(OTHER).status is Status.OK


def test_a_parent_that_is_damaged_fails_its_children_until_it_is_mended(store: Path) -> None:
    """The failure is answered, not stored."""
    one = evaluator(store=store)
    path = one.store.artifact_path(str(one.start_weights))
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    answer = one.evaluate_one(OTHER)
    assert answer.status is Status.BUILD_ERROR
    assert str(path) in answer.message
    path.write_bytes(whole)
    one.reset_repeats()
    assert one.evaluate_one(OTHER).status is Status.OK


def test_a_parent_that_cannot_grow_into_the_child_is_refused(store: Path) -> None:
    """Layers do not become narrower; the message names both networks."""
    one = evaluator(store=store)
    answer = one.evaluate_one(OTHER, parent=one.evaluate_one(WIDE).artifact)
    assert answer.status is Status.BUILD_ERROR
    assert "the parent C16x3 C16x3 A F32 cannot grow into C8x3 A F16 F16" in answer.message


def second(store: Path, parent: str | None, **settings: Any) -> InheritingEvaluator:
    """Return the evaluator of a search that begins at the child `WIDE`."""
    grown = dataclasses.replace(space, network=str(space.decode(WIDE)), filter_levels=(8, 16, 32), max_layers=4)
    return inheriting_evaluator(grown, **{**QUICK, "start_epochs": None, "store": store, "parent": parent, **settings})


def test_a_child_is_a_parent(store: Path) -> None:
    """Of the second search, without a training in between; and so is its child, of a third one."""
    first = evaluator(store=store).evaluate_one(WIDE)
    two = second(store, first.artifact)
    encoding = two.space.canonical((1, 1, 0, 0, 0, 1))
    answer = two.evaluate_one(encoding)
    assert answer.status is Status.OK, answer.message
    assert (two.start_weights, two.trained_epochs) == (first.artifact, 1)
    assert answer.metrics["valid_accuracy"] > first.metrics["valid_accuracy"] - 0.1
    three = EASSpace(**{**two.space.settings, "network": str(two.space.decode(encoding)), "filter_levels": (8, 16, 32)})
    third = inheriting_evaluator(three, **{**QUICK, "start_epochs": None, "store": store, "parent": answer.artifact})
    assert third.evaluate_one(three.sample(np.random.default_rng(0))).status is Status.OK


def test_a_grandparent_is_a_parent(store: Path) -> None:
    """A query may name any network from which its architecture can grow, such as the start network of all."""
    one = evaluator(store=store)
    two = second(store, one.evaluate_one(WIDE).artifact)
    answer = two.evaluate_one(two.space.canonical((1, 1, 0, 0, 0, 1)), parent=one.start_weights)
    assert answer.status is Status.OK, answer.message


def test_a_paused_child_is_a_parent(store: Path) -> None:
    """Its checkpoint says the graph."""
    paused = evaluator(store=store, epochs=2).evaluate_one(WIDE, fidelity=1)
    two = second(store, paused.artifact)
    answer = two.evaluate_one(two.space.canonical((1, 1, 0, 0, 0, 1)))
    assert answer.status is Status.OK, answer.message


def test_a_second_start_network_may_be_trained_on(store: Path) -> None:
    """From its parent's weights, once; its children inherit the result."""
    parent = evaluator(store=store).evaluate_one(WIDE)
    two = second(store, parent.artifact, start_epochs=2, start_learning_rate=0.02)
    assert two.evaluate_one(two.space.sample(np.random.default_rng(0))).status is Status.OK
    trained = two.store.get(two.start_key)
    assert trained is not None
    assert two.start_key.parent == parent.artifact != two.start_weights
    assert trained.curve["valid_accuracy"][0] > parent.metrics["valid_accuracy"] - 0.1
    assert two.trained_epochs == 3


def test_weights_of_another_store_are_taken_over(store: Path, tmp_path: Path) -> None:
    """Once, under their content; the search then needs no other store."""
    one = evaluator(store=store)
    artifact = str(one.evaluate_one(WIDE).artifact)
    two = second(tmp_path / "second.sqlite", str(one.store.artifact_path(artifact)))
    encoding = two.space.sample(np.random.default_rng(0))
    assert two.evaluate_one(encoding).status is Status.OK
    path = two.store.artifact_path(artifact)
    assert path is not None
    assert path.is_relative_to(tmp_path / "second.artifacts")
    assert two.store.verify() == []


def test_a_second_search_without_its_parent_fails_its_children(tmp_path: Path) -> None:
    """The message names the file, which may come back."""
    two = second(tmp_path / "store.sqlite", str(tmp_path / "gone"))
    answer = two.evaluate_one(two.space.sample(np.random.default_rng(0)))
    assert answer.status is Status.BUILD_ERROR
    assert f"there is no file {tmp_path / 'gone'}" in answer.message


def test_a_parent_of_other_layers_fails_the_second_search(store: Path) -> None:
    """The start network of the first one is not what the second begins at."""
    two = second(store, evaluator(store=store).start_weights, start_epochs=1)
    answer = two.evaluate_one(two.space.sample(np.random.default_rng(0)))
    assert answer.status is Status.BUILD_ERROR
    assert "the parent is C8x3 A F16, where the episodes of this space begin at C16x3 C16x3 A F32" in answer.message


# --- what optimisers remember ----------------------------------------------------------------------


def test_an_optimisers_memory_is_inherited(store: Path) -> None:
    """Then the child is another training, under another key, whose first steps go on where its parent's ended."""
    reset, mapped = evaluator(store=store), evaluator(store=store, optimiser_state="mapped")
    answers = [one.evaluate_one(OTHER) for one in (reset, mapped)]
    assert [answer.status for answer in answers] == [Status.OK] * 2
    assert untimed(answers[0]) != untimed(answers[1])
    memories = [load_parent(start_file(one)).memory for one in (reset, mapped)]
    assert memories[0] == {}
    assert memories[1]["conv1.weight"]["momentum_buffer"].shape == (8, 1, 3, 3)


def start_file(one: InheritingEvaluator) -> Path:
    """Return the file of the start network."""
    path = one.store.artifact_path(str(one.start_weights))
    assert path is not None
    return path


def test_a_parent_without_a_memory_cannot_hand_it_on(store: Path) -> None:
    """The message says what to do."""
    parent = evaluator(store=store).start_weights
    answer = evaluator(store=store, optimiser_state="mapped").evaluate_one(OTHER, parent=parent)
    assert answer.status is Status.BUILD_ERROR
    assert "holds no memory of an optimiser" in answer.message


def test_an_unknown_state_of_the_optimiser_names_the_nearest() -> None:
    """A misspelt one is an error."""
    with pytest.raises(UnknownName, match="Did you mean 'mapped'"):
        evaluator(optimiser_state="maped")


def test_a_query_may_name_its_parent(store: Path) -> None:
    """A start network of another training gives another child under another key."""
    one, longer = evaluator(store=store), evaluator(store=store, start_epochs=3)
    named = one.evaluate_one(OTHER, parent=longer.start_weights)
    one.reset_repeats()
    own = one.evaluate_one(OTHER)
    assert named.status is own.status is Status.OK
    assert untimed(named) != untimed(own)
    parents = {key.parent for key, _ in one.store.rows() if key.encoding == OTHER}
    assert parents == {one.start_weights, longer.start_weights}


def test_a_start_network_that_cannot_be_trained_fails_all_children() -> None:
    """A learning rate at which the loss becomes infinite: the search goes on, with a reason."""
    one = evaluator(start_learning_rate=1e30, start_epochs=2)
    answers = [one.evaluate_one(child) for child in (WIDE, OTHER)]
    assert [answer.status for answer in answers] == [Status.BUILD_ERROR] * 2
    assert "the start network could not be trained: diverged" in answers[0].message


# --- the cache -------------------------------------------------------------------------------------


def children(count: int) -> list[tuple[int, ...]]:
    """Return different architectures."""
    found = dict.fromkeys(space.canonical(space.sample(np.random.default_rng(seed))) for seed in range(100))
    return list(found)[:count]


def test_the_oldest_children_lose_their_weights_first(store: Path) -> None:
    """With room for two or three of them; the start network stays, and so does the most accurate child."""
    one = evaluator(store=store, cache_mb=0.09)
    answers = [one.evaluate_one(child) for child in children(5)]
    best = max(answers, key=lambda answer: answer.metrics["valid_accuracy"])
    there = [one.store.artifact_path(str(answer.artifact)) is not None for answer in answers if answer is not best]
    assert there == sorted(there)
    assert not there[0]
    assert one.store.artifact_path(str(best.artifact)) is not None
    assert one.store.artifact_path(str(one.start_weights)) is not None
    assert one.store.verify() == []


def test_weights_that_were_a_parent_are_never_evicted(store: Path) -> None:
    """Also without any room."""
    one = evaluator(store=store)
    longer = evaluator(store=store, start_epochs=3)
    one.evaluate_one(OTHER, parent=longer.start_weights)
    full = evaluator(store=store, cache_mb=0.001)
    for child in children(3):
        full.evaluate_one(child)
    assert all(one.store.artifact_path(str(found.start_weights)) for found in (one, longer))


def test_the_weights_of_an_architecture_can_be_asked_for(store: Path) -> None:
    """As long as they are there; what was not trained has none."""
    one = evaluator(store=store)
    answer = one.evaluate_one(WIDE)
    assert one.artifact(WIDE) == Cached(one).artifact(WIDE) == answer.artifact
    assert one.artifact(OTHER) is None
    one.store.remove_artifact(str(answer.artifact))
    assert one.artifact(WIDE) is None


def test_without_a_cache_no_weights_are_written(store: Path) -> None:
    """Nothing is left but the start network, and children of earlier searches give way."""
    one = evaluator(store=store, cache_mb=0)
    assert one.evaluate_one(OTHER).artifact is None
    start = one.store.artifact_path(str(one.start_weights))
    assert start is not None
    assert one.store.artifact_bytes() == start.stat().st_size


# --- arguments -------------------------------------------------------------------------------------


def test_a_space_without_a_start_network_is_refused() -> None:
    """Cells do not grow."""
    with pytest.raises(UnknownName, match="space with inherited weights"):
        inheriting_evaluator(NASBench201Space())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"builder": "math:sqrt"}, "networks that inherit weights are built by their transforms"),
        ({"reference": "math:sqrt"}, "leave it out, or use evaluator='training'"),
        ({"wider_noise": -1}, "wider_noise must be a number of at least 0, got -1"),
        ({"cache_mb": "much"}, "cache_mb must be a number"),
        ({"start_epochs": 0}, "epochs must be an integer of at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    """Naming what is allowed."""
    with pytest.raises(InvalidArgument, match=message):
        evaluator(**settings)


def test_unknown_settings_name_the_nearest() -> None:
    """A misspelt setting is an error."""
    with pytest.raises(UnknownName, match="Did you mean 'start_epochs'"):
        evaluator(start_epoch=3)


def test_a_fidelity_beyond_the_recipe_is_refused(store: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(FidelityError):
        evaluator(store=store).evaluate_one(WIDE, fidelity=2)
