"""Several trained classifiers as one: the mean of their class probabilities, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nas_gym.networks.ensemble import Ensemble
from nas_gym.networks.operations import Dropout


class Fixed(nn.Module):
    """Puts out the logarithms of given probabilities for every image, shifted as logits may be."""

    def __init__(self, *probabilities: float, shift: float = 0.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([math.log(one) + shift for one in probabilities]))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


IMAGES = torch.zeros(3, 1, 2, 2)


def answer(*members: nn.Module) -> list[float]:
    """Return the probabilities of one image."""
    return Ensemble(members)(IMAGES)[0].tolist()


def test_probabilities_are_averaged() -> None:
    """Of 0.9 and 0.2, of 0.1 and 0.8."""
    assert answer(Fixed(0.9, 0.1), Fixed(0.2, 0.8)) == pytest.approx([0.55, 0.45])


def test_a_sure_member_does_not_overrule_two_others() -> None:
    """As it would if logits were averaged: ln(0.999 / 0.001) outweighs twice ln(0.2 / 0.8)."""
    probabilities = answer(Fixed(0.999, 0.001), Fixed(0.2, 0.8), Fixed(0.2, 0.8))
    assert probabilities == pytest.approx([(0.999 + 0.4) / 3, (0.001 + 1.6) / 3])


def test_the_scale_of_logits_does_not_count() -> None:
    """Adding a constant to the logits of a member changes nothing."""
    assert answer(Fixed(0.9, 0.1, shift=50.0), Fixed(0.2, 0.8)) == pytest.approx([0.55, 0.45])


def test_the_probabilities_of_every_image_sum_to_one() -> None:
    """One row per image."""
    sums = Ensemble([Fixed(0.5, 0.3, 0.2), Fixed(0.1, 0.1, 0.8)])(IMAGES).sum(1)
    assert sums.tolist() == pytest.approx([1.0] * len(IMAGES))


def test_images_are_answered_one_by_one() -> None:
    """Members see their own image of a batch."""
    member = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    ensemble = Ensemble([member, Fixed(0.2, 0.8)])
    alone = [ensemble(image[None])[0].tolist() for image in images]
    assert [pytest.approx(row) for row in ensemble(images).tolist()] == alone


def test_one_member_is_itself() -> None:
    """Its own probabilities."""
    assert answer(Fixed(0.7, 0.3)) == pytest.approx([0.7, 0.3])


def test_members_are_switched_to_evaluation_together() -> None:
    """Their dropout ends with the training."""
    ensemble = Ensemble([nn.Sequential(Dropout(0.5), Fixed(0.7, 0.3)), Fixed(0.2, 0.8)]).eval()
    assert [module.training for module in ensemble.modules()] == [False] * len(list(ensemble.modules()))
