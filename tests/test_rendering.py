"""From a finished or unfinished architecture to text or a picture."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from toys import ToySpace

from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.rendering import Window, render_rgb, render_text
from nas_gym.rendering.arcs import Arcs, sides
from nas_gym.rendering.canvas import Fonts
from nas_gym.rendering.colours import ALARM, HALO, colour_of
from nas_gym.rendering.rows import Rows
from nas_gym.rendering.scene import Marks, Scene, profile
from nas_gym.search_spaces import SEARCH_SPACES, Decision, Encoding, FixedSlotSpace, SearchSpace
from nas_gym.search_spaces.blockqnn import BlockQNNSpace
from nas_gym.search_spaces.core import Sketch
from nas_gym.search_spaces.metaqnn import MetaQNNSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


class Widths(FixedSlotSpace):
    """Three widths on the edges of a chain."""

    name: ClassVar[str] = "widths"

    @property
    def slots(self) -> tuple[Decision, ...]:
        return (Decision(0, ("8", "16"), True, (True, True)),) * 3

    def decode(self, encoding: Encoding) -> Encoding:
        return self.validate(encoding)

    def sketch(self, prefix: Encoding) -> Sketch:
        labels = [("8", "16")[choice] for choice in prefix] + ["?"] * (3 - len(prefix))
        return Sketch(
            ("input", "layer 1", "layer 2", "output"), tuple((i, i + 1, text) for i, text in enumerate(labels))
        )


cells, toy, widths = NASBench201Space(), ToySpace(), Widths()
deep_chains, blocks = MetaQNNSpace(max_depth=18, image_size=32), BlockQNNSpace()
SPACES: dict[str, SearchSpace] = {
    **{name: SEARCH_SPACES[name]() for name in SEARCH_SPACES},
    "metaqnn of 18 layers": deep_chains,
    "toy": toy,
    "widths": widths,
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)

CELL = (3, 0, 1, 4, 2, 0)
BLOCK = blocks.from_string("(1,1,3,0,0) (2,2,3,0,0) (3,5,0,1,2) (4,7,0,0,0)")

TEXTS: dict[str, tuple[SearchSpace, Encoding, dict[str, Any], str]] = {
    "empty cell": (
        cells,
        (),
        {},
        """\
nas_bench_201: 0 of 6 decisions
     1 = <?(input)>
     2 = ?(input) + ?(1)
output = ?(input) + ?(1) + ?(2)
next: <decision 1> none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3""",
    ),
    "partial cell": (
        cells,
        CELL[:3],
        {},
        """\
nas_bench_201: 3 of 6 decisions
     1 = nor_conv_3x3(input)
     2 = none(input) + [skip_connect(1)]
output = <?(input)> + ?(1) + ?(2)
last: [decision 3] skip_connect
next: <decision 4> none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3""",
    ),
    "complete cell": (
        cells,
        CELL,
        {},
        """\
nas_bench_201: 6 of 6 decisions
     1 = nor_conv_3x3(input)
     2 = none(input) + skip_connect(1)
output = avg_pool_3x3(input) + nor_conv_1x1(1) + [none(2)]
last: [decision 6] none
complete""",
    ),
    "edited cell": (
        cells,
        CELL,
        {"highlight": (0, 4), "caption": "edit 2 of 20"},
        """\
nas_bench_201: 6 of 6 decisions
     1 = [nor_conv_3x3(input)]
     2 = none(input) + skip_connect(1)
output = avg_pool_3x3(input) + [nor_conv_1x1(1)] + none(2)
last: [decision 1] nor_conv_3x3, [decision 5] nor_conv_1x1
complete, edit 2 of 20""",
    ),
    "cell without a highlight": (
        cells,
        CELL[:1],
        {"highlight": ()},
        """\
nas_bench_201: 1 of 6 decisions
     1 = nor_conv_3x3(input)
     2 = <?(input)> + ?(1)
output = ?(input) + ?(1) + ?(2)
next: <decision 2> none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3""",
    ),
    "invalid action": (
        toy,
        (2,),
        {"invalid": True},
        """\
toy: 1 of at most 6 decisions
input -> [pool] -> ?
last: [decision 1] pool
ended by an invalid action""",
    ),
    "partial chain with two kinds of decisions": (
        toy,
        (2, 1),
        {},
        """\
toy: 2 of at most 6 decisions
input -> pool -> [conv] -> <?>
last: [decision 2] conv
next: <decision 3, kind 1> 1x1, 3x3, 5x5, 7x7""",
    ),
    "chain with a masked choice": (
        toy,
        (2,),
        {},
        """\
toy: 1 of at most 6 decisions
input -> [pool] -> <?>
last: [decision 1] pool
next: <decision 2, kind 0> stop, conv""",
    ),
    "complete chain": (
        toy,
        (2, 0),
        {},
        """\
toy: 2 of at most 6 decisions
input -> pool -> [stop] -> output
last: [decision 2] stop
complete""",
    ),
    "chain with operations on its edges": (
        widths,
        (0, 1),
        {},
        """\
widths: 2 of 3 decisions
input -8-> layer 1 -[16]-> layer 2 -<?>-> output
last: [decision 2] 16
next: <decision 3> 8, 16""",
    ),
    "partial block": (
        blocks,
        BLOCK[:3],
        {},
        """\
blockqnn: 3 of at most 23 decisions
 1:conv3  <- input
 2:max3   <- input
[3:add]   <- 1:conv3, 2:max3
<?>       <- 3:add
last: [decision 3] add(1,2)
next: <decision 4> 57 of 1,101 choices""",
    ),
    "complete block": (
        blocks,
        BLOCK,
        {},
        """\
blockqnn: 4 of at most 23 decisions
 1:conv3  <- input
 2:max3   <- input
 3:add    <- 1:conv3, 2:max3
[output]  <- 3:add
last: [decision 4] end
complete""",
    ),
}


@pytest.mark.parametrize(("space", "prefix", "view", "expected"), TEXTS.values(), ids=TEXTS)
def test_texts(space: SearchSpace, prefix: Encoding, view: dict[str, Any], expected: str) -> None:
    """Sums where operations are on edges, readers where they are on nodes, a path where it is a chain."""
    assert render_text(space, prefix, **view) == expected


def test_long_chains_are_broken_into_lines() -> None:
    """No line is longer than a terminal of 100 columns, and every layer is there."""
    encoding = deep_chains.from_string(" ".join(["C(512,5,1)"] * 18 + ["SM"]))
    lines = render_text(deep_chains, encoding).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.count("C(512,5,1)") for line in lines) == 18


def longest(space: SearchSpace, seed: int = 0) -> Encoding:
    """Return the longest of a few random architectures."""
    rng = np.random.default_rng(seed)
    return max((space.sample(rng) for _ in range(5)), key=len)


def beginnings(encoding: Encoding) -> list[Encoding]:
    """Return everything from the empty prefix to the complete encoding."""
    return [encoding[:length] for length in range(len(encoding) + 1)]


def parts(scene: Scene, marks: Marks) -> set[object]:
    """Return nodes by index and edges by source, target and label."""
    return {*marks.nodes, *(scene.sketch.edges[edge] for edge in marks.edges)}


@every_space
class TestMarks:
    """Every decision of every space is seen in the graph, without a line for that space."""

    def test_the_last_decision_is_marked(self, space: SearchSpace) -> None:
        """At every prefix that has one; at the empty one nothing is."""
        marked = [
            bool(parts(scene, scene.last)) for scene in map(lambda p: Scene.of(space, p), beginnings(longest(space)))
        ]
        assert marked == [False] + [True] * (len(marked) - 1)

    def test_the_next_decision_is_marked(self, space: SearchSpace) -> None:
        """At every prefix that leaves one; at the complete one nothing is."""
        marked = [
            bool(parts(scene, scene.next)) for scene in map(lambda p: Scene.of(space, p), beginnings(longest(space)))
        ]
        assert marked == [True] * (len(marked) - 1) + [False]

    def test_the_next_decision_becomes_the_last(self, space: SearchSpace) -> None:
        """What was marked as due is marked as decided one step later."""
        for before, behind in itertools.pairwise(beginnings(longest(space))):
            due, decided = Scene.of(space, before), Scene.of(space, behind)
            places = {edge[:2] if isinstance(edge, tuple) else edge for edge in parts(decided, decided.last)}
            assert any((edge[:2] if isinstance(edge, tuple) else edge) in places for edge in parts(due, due.next))

    def test_a_decision_stays_where_it_was_drawn(self, space: SearchSpace) -> None:
        """Highlighted in the finished architecture, it is what was highlighted when it was taken."""
        encoding = longest(space)
        for position in range(len(encoding)):
            then = Scene.of(space, encoding[: position + 1])
            now = Scene.of(space, encoding, highlight=[position])
            assert parts(then, then.last) == parts(now, now.last)

    def test_text_marks_both(self, space: SearchSpace) -> None:
        """Brackets in the graph, that is above the lines that name the decisions."""
        for prefix in beginnings(longest(space)):
            text = render_text(space, prefix)
            graph = text[: text.find("\nlast:" if prefix else "\nnext:")]
            assert ("[" in graph) == bool(prefix)
            assert ("<?" in graph) == (not space.is_complete(prefix))


@pytest.mark.parametrize("highlight", [(6,), (-1,), (0, 9)])
def test_decisions_that_were_not_taken_cannot_be_highlighted(highlight: Collection[int]) -> None:
    """The message says what can."""
    with pytest.raises(InvalidArgument, match="indices of the 6 decisions"):
        render_text(cells, CELL, highlight=highlight)


# --- pictures --------------------------------------------------------------------------------------


@pytest.fixture
def pygame() -> Any:
    """Skip without pygame; its own import may warn of outdated packages that it uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pygame")


def pixels(image: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    """Return how many pixels have a colour."""
    return int((image == colour).all(axis=2).sum())


@every_space
def test_the_frames_of_an_episode_have_one_size_and_differ(pygame: Any, space: SearchSpace) -> None:
    """A recorded episode is a film, whose every decision is seen; video formats want even numbers."""
    rng = np.random.default_rng(1)
    episodes = [longest(space), space.sample(rng)]
    frames = {prefix: render_rgb(space, prefix) for episode in episodes for prefix in beginnings(episode)}
    (size,) = {(frame.dtype, frame.shape) for frame in frames.values()}
    assert size[0] == np.uint8
    assert (size[1][0] % 2, size[1][1] % 2, size[1][2]) == (0, 0, 3)
    assert len({frame.tobytes() for frame in frames.values()}) == len(frames)


@every_space
def test_the_last_decision_glows(pygame: Any, space: SearchSpace) -> None:
    """In a colour that nothing else has."""
    encoding = longest(space)
    assert pixels(render_rgb(space, ()), HALO) == 0
    assert pixels(render_rgb(space, encoding, highlight=()), HALO) == 0
    assert pixels(render_rgb(space, encoding), HALO) > 100
    assert pixels(render_rgb(space, encoding[:1]), HALO) > 100


def test_two_highlights_glow_more_than_one(pygame: Any) -> None:
    """An edit of two decisions shows both."""
    one, two = (pixels(render_rgb(cells, CELL, highlight=chosen), HALO) for chosen in ((0,), (0, 2)))
    assert two > 1.5 * one


def test_the_end_by_an_invalid_action_is_an_alarm(pygame: Any) -> None:
    """Red words, and no next decision."""
    assert pixels(render_rgb(cells, CELL[:2]), ALARM) == 0
    assert pixels(render_rgb(cells, CELL[:2], invalid=True), ALARM) > 20


def test_a_caption_is_seen(pygame: Any) -> None:
    """It changes the picture."""
    assert not np.array_equal(render_rgb(cells, CELL), render_rgb(cells, CELL, caption="edit 2 of 20"))


def test_a_picture_depends_on_its_arguments_alone(pygame: Any) -> None:
    """Drawn twice, with another space in between and pygame shut down, it is the same."""
    first = render_rgb(cells, CELL[:3])
    render_rgb(toy, (2,))
    pygame.quit()
    np.testing.assert_array_equal(render_rgb(cells, CELL[:3]), first)


def test_a_picture_can_be_written_to(pygame: Any) -> None:
    """The caller owns the array."""
    assert render_rgb(cells, ()).flags.writeable


@pytest.mark.parametrize("more", [0, 7], ids=["expected", "larger than expected"])
@every_space
def test_boxes_do_not_overlap_nor_leave_the_picture(pygame: Any, space: SearchSpace, more: int) -> None:
    """As many nodes as the largest architecture has; with more they move closer but stay inside."""
    shape = profile(space)
    layout = Rows(shape, Fonts(), 920) if shape.is_chain else Arcs(shape, Fonts(), 920)
    centres = np.array(layout.places(shape.capacity + more))
    half = np.array(layout.box) / 2
    assert len(centres) == shape.capacity + more
    assert (centres - half >= 0).all()
    assert (centres + half <= (layout.width, layout.height)).all()
    if not more:
        distances = np.abs(centres[:, None] - centres[None])
        apart = (distances >= 2 * half).any(axis=2)
        assert apart[~np.eye(len(centres), dtype=bool)].all()


@every_space
def test_the_largest_architectures_fit(space: SearchSpace) -> None:
    """The layout has places for as many nodes as a long architecture has."""
    rng = np.random.default_rng(2)
    assert max(len(space.sketch(space.sample(rng)).nodes) for _ in range(50)) <= profile(space).capacity


@pytest.mark.parametrize(
    ("space", "capacity"),
    [(cells, 4), (deep_chains, 21), (blocks, 24), (toy, 8), (widths, 4)],
    ids=lambda one: str(one),
)
def test_layouts_waste_no_place(space: SearchSpace, capacity: int) -> None:
    """The number of nodes of the largest sketch is found exactly."""
    assert profile(space).capacity == capacity


def test_unexpected_nodes_do_not_change_the_size(pygame: Any) -> None:
    """Places for few nodes: the same height for many."""
    shape = dataclasses.replace(profile(deep_chains), capacity=10)
    layout = Rows(shape, Fonts(), 920)
    assert max(y for _, y in layout.places(30)) < layout.height


def test_edges_avoid_crossings() -> None:
    """Neighbours are joined straight, crossing arcs are on different sides."""
    edges = tuple((source, target, "") for source, target in ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)))
    assert sides(Sketch(("input", "1", "2", "output"), edges)) == [0, -1, 0, -1, 1, 0]


def test_parallel_edges_are_seen_as_two() -> None:
    """One is straight, the other an arc."""
    assert sides(Sketch(("input", "add"), ((0, 1, ""), (0, 1, "")))) == [0, -1]


# --- colours ---------------------------------------------------------------------------------------


def test_numbered_nodes_have_the_colour_of_their_operation() -> None:
    """Their number says nothing about it."""
    assert colour_of("7:conv3") == colour_of("conv3")


def test_larger_operations_are_darker() -> None:
    """Kernels and widths."""
    shades = [sum(colour_of(label)) for label in ("nor_conv_1x1", "nor_conv_3x3", "nor_conv_5x5")]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == 3


def test_unknown_operations_have_colours_of_their_own() -> None:
    """Derived from the name, hence the same in every process."""
    assert colour_of("mixer") == colour_of("mixer_1")
    assert len({colour_of(name) for name in ("mixer", "attention", "shuffle")}) == 3


# --- without pygame --------------------------------------------------------------------------------


def test_a_picture_without_pygame_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(MissingExtra, match=r"rendering as an image needs .*pip install \"nas-gym\[render\]\""):
        render_rgb(cells, ())


def test_a_window_without_pygame_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step is taken."""
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(MissingExtra, match=r"render_mode='human' needs .*pip install \"nas-gym\[render\]\""):
        Window("cells")


def test_text_needs_no_pygame(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is plain text."""
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert render_text(cells, ()).startswith("nas_bench_201")
