"""Random changes of training images: small images whose every pixel tells where it came from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_gym.networks.augmentation import AUGMENTATIONS, crop, cutout, flip
from nas_gym.networks.recipe import AUGMENTATIONS as NAMES

IMAGES = torch.arange(1, 1 + 200 * 8 * 8, dtype=torch.float32).reshape(200, 1, 8, 8)


def draw(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_an_augmentation_depends_on_its_generator_alone(name: str) -> None:
    """The same seed gives the same images, another one others, and the images themselves stay."""
    before = IMAGES.clone()
    one, again, other = (AUGMENTATIONS[name](IMAGES, draw(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(IMAGES, before)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_an_augmentation_leaves_the_global_generator_alone(name: str) -> None:
    """All chance comes from the generator that is passed."""
    before = torch.get_rng_state()
    AUGMENTATIONS[name](IMAGES, draw())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5, 3, 6, 8), (5, 1, 1, 1), (1, 3, 33, 17)], ids=str)
@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_shape_and_type_stay(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Images of any size, square or not, come out as large as they went in."""
    changed = AUGMENTATIONS[name](torch.ones(shape, dtype=dtype), draw())
    assert (changed.shape, changed.dtype) == (shape, dtype)


def test_a_recipe_knows_every_augmentation() -> None:
    """The names that a recipe accepts are those of the functions."""
    assert set(NAMES) == set(AUGMENTATIONS)


def test_crops_are_shifts_of_the_padded_image() -> None:
    """By up to an eighth of the side, one pixel of eight, and all nine of them occur."""
    padded = nn.functional.pad(IMAGES, (1, 1, 1, 1))
    shifts = set()
    for image, original in zip(crop(IMAGES, draw()), padded, strict=True):
        fits = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(image, original[:, top : top + 8, left : left + 8])
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) == 9


def test_about_half_of_the_images_are_mirrored() -> None:
    """The others stay as they are."""
    changed = flip(IMAGES, draw())
    mirrored, same = ((changed == form).all(3).all(2)[:, 0] for form in (IMAGES.flip(3), IMAGES))
    assert bool((mirrored ^ same).all())
    assert 70 <= int(mirrored.sum()) <= 130


def test_cutout_changes_nothing_but_what_it_blanks() -> None:
    """All other pixels keep their values."""
    changed = cutout(IMAGES, draw())
    kept = changed != 0
    assert torch.equal(changed[kept], IMAGES[kept])


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_the_channels_of_an_image_change_together(name: str) -> None:
    """Three equal channels are equal afterwards."""
    changed = AUGMENTATIONS[name](IMAGES.repeat(1, 3, 1, 1), draw())
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])


@pytest.mark.parametrize(
    ("size", "shift"),
    [pytest.param(32, 4, id="CIFAR"), pytest.param(224, 28, id="ImageNet"), pytest.param(4, 1, id="at least 1")],
)
def test_crops_move_by_up_to_an_eighth_of_the_side(size: int, shift: int) -> None:
    """The widest padding that shows at the left edge of all-ones images is the largest shift."""
    cropped = crop(torch.ones(400, 1, 8, size), draw())
    assert int((cropped[:, 0, 4, : size // 2] == 0).sum(1).max()) == shift


def test_the_square_of_cutout_has_half_the_side_of_the_image() -> None:
    """16x16 of 32x32 pixels where it lies inside, as for CIFAR in the paper; a quarter of that in the corner."""
    areas = (cutout(torch.ones(4000, 1, 32, 32), draw()) == 0).sum((1, 2, 3))
    assert (int(areas.max()), int(areas.min())) == (16 * 16, 8 * 8)


def test_the_blank_part_of_cutout_is_a_rectangle() -> None:
    """Its area is the number of its rows times the number of its columns."""
    blank = cutout(IMAGES, draw())[:, 0] == 0
    assert torch.equal(blank.sum((1, 2)), blank.any(2).sum(1) * blank.any(1).sum(1))
