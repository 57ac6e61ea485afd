"""From a finished or unfinished architecture to text or a picture."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from toys import ToySpace

from nas_gym.errors import MissingExtra
from nas_gym.rendering import render_rgb, render_text
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

cells = NASBench201Space()
toy = ToySpace()

TEXTS: dict[str, tuple[SearchSpace, Encoding, str]] = {
    "empty cell": (
        cells,
        (),
        """\
nas_bench_201: 0 decisions taken
     1 = ?(input)
     2 = ?(input) + ?(1)
output = ?(input) + ?(1) + ?(2)""",
    ),
    "partial cell": (
        cells,
        (3, 0, 1),
        """\
nas_bench_201: 3 decisions taken
     1 = nor_conv_3x3(input)
     2 = none(input) + skip_connect(1)
output = ?(input) + ?(1) + ?(2)""",
    ),
    "complete cell": (
        cells,
        (3, 0, 1, 4, 2, 0),
        """\
nas_bench_201: 6 decisions taken
     1 = nor_conv_3x3(input)
     2 = none(input) + skip_connect(1)
output = avg_pool_3x3(input) + nor_conv_1x1(1) + none(2)""",
    ),
    "partial chain": (
        toy,
        (1, 1),
        """\
toy: 2 decisions taken
 conv = input
  3x3 = conv
    ? = 3x3""",
    ),
    "complete chain": (
        toy,
        (2, 0),
        """\
toy: 2 decisions taken
  pool = input
  stop = pool
output = stop""",
    ),
}


def picture(space: SearchSpace, prefix: Encoding) -> npt.NDArray[np.uint8]:
    """Return the picture of an architecture; pygame's own import may warn of outdated packages it uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pygame")
    return render_rgb(space, prefix)


@pytest.mark.parametrize(("space", "prefix", "expected"), TEXTS.values(), ids=TEXTS)
def test_the_text_says_what_every_node_sums(space: SearchSpace, prefix: Encoding, expected: str) -> None:
    """One line a node, undecided edges as a question mark."""
    assert render_text(space, prefix) == expected


@pytest.mark.parametrize(("space", "prefix", "expected"), TEXTS.values(), ids=TEXTS)
def test_a_picture_is_an_rgb_array(space: SearchSpace, prefix: Encoding, expected: str) -> None:
    """uint8 [height, width, 3], wider than high, not empty."""
    image = picture(space, prefix)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.shape[1] > image.shape[0] > 50
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 2


def test_the_frames_of_an_episode_have_one_size() -> None:
    """A recorded episode is a film."""
    encoding = (3, 0, 1, 4, 2, 0)
    assert len({picture(cells, encoding[:length]).shape for length in range(7)}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((3, 0, 1, 4, 2, 0), (3, 0, 1, 4, 2, 1), id="another operation"),
        pytest.param((3, 0, 1), (3, 0), id="one more decision"),
        pytest.param((0,) * 6, (), id="nothing and undecided"),
    ],
)
def test_different_cells_have_different_pictures(one: Encoding, other: Encoding) -> None:
    """What differs can be seen."""
    assert not np.array_equal(picture(cells, one), picture(cells, other))


def test_a_picture_depends_on_the_architecture_alone() -> None:
    """Drawn twice, it is the same."""
    np.testing.assert_array_equal(picture(cells, (3, 0, 1)), picture(cells, (3, 0, 1)))


def test_a_picture_can_be_written_to() -> None:
    """The caller owns the array."""
    assert picture(cells, ()).flags.writeable


def test_without_pygame_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(MissingExtra, match=r"rendering as an image needs .*pip install \"nas-gym\[render\]\""):
        render_rgb(cells, ())
