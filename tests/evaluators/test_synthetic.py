"""The analytic landscape: its optimum is known, and it is the only one."""

from __future__ import annotations

import pytest
from toys import ToySpace

from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

SPACES: list[SearchSpace] = [ToySpace(), NASBench201Space()]
SEEDS = (0, 1)

every_landscape = pytest.mark.parametrize(
    "landscape",
    [pytest.param((space, seed), id=f"{space.name}, seed {seed}") for space in SPACES for seed in SEEDS],
    indirect=True,
)


@pytest.fixture
def landscape(request: pytest.FixtureRequest) -> SyntheticEvaluator:
    """Return a landscape over a space."""
    space, seed = request.param
    return SyntheticEvaluator(space, evaluation_seed=seed)


def agreement(one: Encoding, other: Encoding) -> float:
    """Return the share of positions at which two encodings agree."""
    agreeing = [mine == theirs for mine, theirs in zip(one, other, strict=False)]
    return sum(agreeing) / max(len(one), len(other))


@every_landscape
@pytest.mark.parametrize("metric", ["valid_accuracy", "test_accuracy"])
def test_the_optimum_and_its_isomorphs_are_the_only_best_ones(landscape: SyntheticEvaluator, metric: str) -> None:
    """Over the whole space, the best value is reached by one class: that of the optimum."""
    space = landscape.space
    accuracies = {encoding: landscape.report(encoding)[metric] for encoding in space.enumerate()}
    best = max(accuracies.values())
    classes = {space.canonical(encoding) for encoding, accuracy in accuracies.items() if accuracy == best}
    assert classes == {landscape.optimum}


@every_landscape
def test_accuracies_are_fractions(landscape: SyntheticEvaluator) -> None:
    """From 0.1 to less than 1."""
    accuracies = [
        landscape.evaluate_one(encoding).metrics["valid_accuracy"] for encoding in landscape.space.enumerate()
    ]
    assert 0.1 <= min(accuracies) < max(accuracies) <= 1


@every_landscape
def test_one_more_agreement_outweighs_any_ruggedness(landscape: SyntheticEvaluator) -> None:
    """Sorted by accuracy, canonical encodings of one length are sorted by their agreement with the optimum."""
    space = landscape.space
    same_length = {
        canonical for canonical in map(space.canonical, space.enumerate()) if len(canonical) == len(landscape.optimum)
    }
    order = sorted(same_length, key=lambda encoding: landscape.evaluate_one(encoding).metrics["valid_accuracy"])
    agreements = [agreement(encoding, landscape.optimum) for encoding in order]
    assert agreements == sorted(agreements)


@every_landscape
def test_isomorphic_architectures_are_alike(landscape: SyntheticEvaluator) -> None:
    """A whole class has one answer."""
    space = landscape.space
    assert all(
        landscape.evaluate_one(encoding) == landscape.evaluate_one(space.canonical(encoding))
        for encoding in list(space.enumerate())[::50]
    )


@every_landscape
def test_the_landscape_is_rugged(landscape: SyntheticEvaluator) -> None:
    """Architectures that agree equally with the optimum differ nevertheless."""
    classes = {landscape.space.canonical(encoding) for encoding in landscape.space.enumerate()}
    accuracies = {landscape.evaluate_one(encoding).metrics["valid_accuracy"] for encoding in classes}
    assert len(accuracies) == len(classes)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_another_seed_is_another_landscape(space: SearchSpace) -> None:
    """Five seeds have more than one optimum."""
    assert len({SyntheticEvaluator(space, evaluation_seed=seed).optimum for seed in range(5)}) > 1


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_held_out_and_search_accuracy_are_rugged_in_different_places(space: SearchSpace) -> None:
    """The held-out accuracy cannot be read off the search signal."""
    landscape = SyntheticEvaluator(space)
    reports = [landscape.report(encoding) for encoding in list(space.enumerate())[::20]]
    assert any(report["test_accuracy"] != report["valid_accuracy"] for report in reports)


def test_a_space_with_other_lengths_punishes_missing_decisions() -> None:
    """Positions beyond the end of the shorter encoding disagree, so a prefix of the optimum is worse."""
    space = ToySpace()
    landscape = next(
        candidate
        for candidate in (SyntheticEvaluator(space, evaluation_seed=seed) for seed in range(100))
        if len(candidate.optimum) == space.max_length
    )
    shorter = (*landscape.optimum[:2], 0)
    accuracy = landscape.evaluate_one(shorter).metrics["valid_accuracy"]
    assert 0.1 + 0.8 * 2 / 6 <= accuracy < 0.1 + 0.8 * 2 / 6 + 0.1 / 6


def test_no_fidelity_is_claimed() -> None:
    """An analytic value has no epochs."""
    assert SyntheticEvaluator(ToySpace()).fidelities is None
