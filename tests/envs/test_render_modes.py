"""Rendering of the registered environments: every mode, the window, and Gymnasium's wrappers around them."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what users' tools do to an environment
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import HumanRendering, RecordVideo, RenderCollection

from nas_gym import ENVIRONMENTS
from nas_gym.envs.core.base import RENDER_MODES
from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.rendering import window

every_id = pytest.mark.parametrize("name", list(ENVIRONMENTS))
CELL = "NAS-Cell-v0"


def make(name: str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Return an environment without data."""
    return gymnasium.make(name, evaluator="synthetic", render_mode=render_mode)


def play(env: gymnasium.Env[Any, Any], seed: int = 0, masked: bool = False) -> Iterator[Any]:
    """Play a random episode, its last action a masked one if asked for; yield what `render` gives on the way."""
    rng = np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    yield env.render()
    over = False
    while not over:
        mask = info["action_mask"]
        illegal = np.flatnonzero(mask == 0)
        choices = illegal if masked and len(illegal) else np.flatnonzero(mask)
        *_, terminated, truncated, info = env.step(rng.choice(choices))
        over = terminated or truncated
        yield env.render()


@pytest.fixture
def pygame(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return pygame without a screen; skip where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its own import may warn of outdated packages that it uses.
        module = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    module.display.quit()
    yield module
    module.display.quit()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows show a thousand pictures a second."""
    for row in ENVIRONMENTS.values():
        entry: Any = gymnasium.envs.registration.load_env_creator(row.entry_point)
        monkeypatch.setitem(entry.metadata, "render_fps", 1000)


# --- text and pictures -----------------------------------------------------------------------------


@every_id
class TestEveryEnvironment:
    """What holds for every id, at every step of an episode."""

    def test_every_step_is_another_text(self, name: str) -> None:
        """Up to the last one, which says that the architecture is complete; edits may come back to an earlier one."""
        env: Any = make(name, "ansi")
        texts = list(play(env))
        assert len(set(texts)) == len(texts) > 1 or not env.unwrapped.actions_are_decisions
        assert texts[-1].splitlines()[-1].startswith("complete")

    def test_pictures_have_one_size(self, name: str, pygame: Any) -> None:
        """uint8 [height, width, 3], also where an invalid action ends the episode."""
        env = make(name, "rgb_array")
        frames = [*play(env, seed=1), *play(env, seed=2, masked=True)]
        assert {(type(frame), frame.dtype, frame.ndim) for frame in frames} == {(np.ndarray, np.dtype(np.uint8), 3)}
        assert len({frame.shape for frame in frames}) == 1

    def test_nothing_is_rendered_without_a_mode(self, name: str) -> None:
        """`render` gives None."""
        assert set(play(make(name))) == {None}

    def test_without_a_window_a_step_is_that_of_the_class(self, name: str) -> None:
        """Rendering costs a step nothing that it does not use."""
        for mode in (None, "ansi", "rgb_array"):
            assert not {"step", "reset"} & set(vars(make(name, mode).unwrapped))

    @pytest.mark.parametrize("masked", [False, True], ids=["legal", "masked"])
    def test_vector_environments_render_as_gymnasiums_do(self, name: str, masked: bool) -> None:
        """A tuple with the text of every sub-environment, in every step, over several episodes."""
        envs = gymnasium.make_vec(name, 3, "vector_entry_point", evaluator="synthetic", render_mode="ansi")
        others = SyncVectorEnv([lambda: make(name, "ansi")] * 3)
        rng = np.random.default_rng(3)
        _, info = envs.reset(seed=0)
        others.reset(seed=0)
        for _ in range(12):
            assert envs.render() == others.render()
            mask = info["action_mask"]
            weights = rng.random(mask.shape) + (0 if masked else 2 * mask)
            actions = weights.argmax(axis=1)
            *_, info = envs.step(actions)
            others.step(actions)

    def test_vector_environments_without_a_mode_render_none(self, name: str) -> None:
        """One a sub-environment, as Gymnasium's do."""
        envs = gymnasium.make_vec(name, 2, "vector_entry_point", evaluator="synthetic")
        others = SyncVectorEnv([lambda: make(name)] * 2)
        envs.reset(seed=0)
        others.reset(seed=0)
        assert envs.render() == others.render() == (None, None)

    def test_vector_environments_open_no_window(self, name: str) -> None:
        """The message says what they can do instead."""
        entry: Any = gymnasium.envs.registration.load_env_creator(ENVIRONMENTS[name].vector_entry_point)
        with pytest.raises(InvalidArgument, match="must be None or one of ansi, rgb_array"):
            entry(num_envs=2, evaluator="synthetic", render_mode="human")
        assert "human" not in entry(num_envs=2, evaluator="synthetic").metadata["render_modes"]

    def test_gymnasium_finds_nothing_in_any_mode(self, name: str, pygame: Any, fast: None) -> None:
        """Its checker renders in all of them without a warning."""
        env = make(name)
        assert env.metadata["render_modes"] == ["ansi", "rgb_array", "human"]
        check_env(env.unwrapped)


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_a_restored_episode_looks_the_same(mode: str, pygame: Any) -> None:
    """Unfinished, complete or ended by an invalid action."""
    for name, masked in (("NAS-BlockQNN-v0", True), ("NAS-BlockQNN-v0", False), (CELL, False)):
        env, other = make(name, mode), make(name, mode)
        other.reset()
        for seen in play(env, masked=masked):
            other.unwrapped.set_state(env.unwrapped.get_state())  # type: ignore[attr-defined]
            assert np.array_equal(other.render(), seen)


@pytest.mark.parametrize("name", ["NAS-BlockQNN-v0", "NAS-MetaQNN-v0", "NAS-MetaQNN-Table-v0"])
def test_the_text_says_that_an_action_was_invalid(name: str) -> None:
    """In its last line."""
    *_, text = play(make(name, "ansi"), masked=True)
    assert text.splitlines()[-1] == "ended by an invalid action"


def test_a_restored_vector_looks_the_same() -> None:
    """The same for many episodes, one of them ended by an invalid action."""
    envs, other = (
        gymnasium.make_vec(
            "NAS-BlockQNN-v0", 2, "vector_entry_point", evaluator="synthetic", render_mode="ansi"
        ).unwrapped
        for _ in range(2)
    )
    envs.reset()
    envs.step(np.array([0, 1]))
    other.set_state(envs.get_state())  # type: ignore[attr-defined]
    assert "invalid action" in envs.render()[0]  # type: ignore[index]
    assert other.render() == envs.render()


def test_a_vector_that_was_not_begun_has_not_failed() -> None:
    """Nothing was invalid before the first reset."""
    envs = gymnasium.make_vec(CELL, 1, "vector_entry_point", evaluator="synthetic", render_mode="ansi")
    assert "invalid" not in envs.render()[0]  # type: ignore[index]


# --- the window ------------------------------------------------------------------------------------


def shown(pygame: Any) -> npt.NDArray[np.uint8]:
    """Return what the screen shows, uint8 [height, width, 3]."""
    return pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)


@pytest.mark.usefixtures("fast")
class TestWindow:
    """`render_mode="human"`."""

    @every_id
    def test_every_reset_and_step_is_shown(self, name: str, pygame: Any) -> None:
        """The window has the picture of a twin that returns pictures; `render` returns nothing."""
        env, twin = make(name, "human"), make(name, "rgb_array")
        for seen, picture in zip(play(env), play(twin), strict=True):
            assert seen is None
            np.testing.assert_array_equal(shown(pygame), picture)
        env.close()

    def test_it_closes_with_the_environment(self, pygame: Any) -> None:
        """And closing twice is allowed."""
        env = make(CELL, "human")
        env.reset()
        assert pygame.display.get_init()
        env.close()
        assert not pygame.display.get_init()
        env.unwrapped.close()

    def test_nothing_opens_before_the_first_reset(self, pygame: Any) -> None:
        """Making and closing an environment shows nothing."""
        make(CELL, "human").close()
        assert not pygame.display.get_init()

    def test_the_search_goes_on_when_the_user_closes_it(self, pygame: Any) -> None:
        """The window is gone and stays so; rewards are those of an unseen episode."""
        env, unseen = make(CELL, "human"), make(CELL)
        env.reset()
        unseen.reset()
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        for action in (0, 1, 2, 3, 4, 2):
            assert env.step(action)[1] == unseen.step(action)[1]
            assert not pygame.display.get_init()
        env.reset()
        assert not pygame.display.get_init()

    def test_other_code_may_close_the_screen(self, pygame: Any) -> None:
        """It is opened again."""
        env = make(CELL, "human")
        env.reset()
        pygame.quit()
        env.step(1)
        assert pygame.display.get_surface() is not None
        env.close()

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
    def test_a_copy_shows_nothing(self, pygame: Any, duplicate: Any) -> None:
        """A planner tries out steps in it; the screen still shows the original."""
        env = make(CELL, "human")
        env.reset()
        env.step(1)
        before = shown(pygame)
        twin = duplicate(env)
        twin.step(2)
        np.testing.assert_array_equal(shown(pygame), before)
        assert twin.unwrapped.get_state().prefix == (1, 2)
        assert env.unwrapped.get_state().prefix == (1,)  # type: ignore[attr-defined]
        env.close()

    def test_without_a_screen_the_error_says_what_to_do(self, pygame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pictures and videos need none."""
        monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
        env = make(CELL, "human")
        with pytest.raises(InvalidArgument, match=r"cannot open a window.*rgb_array.*RecordVideo"):
            env.reset()

    def test_without_pygame_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the environment is made."""
        monkeypatch.setitem(sys.modules, "pygame", None)
        with pytest.raises(MissingExtra, match=r"nas-gym\[render\]"):
            make(CELL, "human")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the seconds so far."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class TestRate:
    """How long a picture stays, by a clock of our own."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Replace the clock of windows."""
        clock = Clock()
        monkeypatch.setattr(window, "time", clock)
        return clock

    @pytest.fixture
    def picture(self) -> npt.NDArray[np.uint8]:
        """Return a small picture."""
        return np.zeros((4, 6, 3), np.uint8)

    def test_a_picture_stays_as_long_as_the_rate_says(self, pygame: Any, clock: Clock, picture: Any) -> None:
        """Three pictures at two a second take a second: the last is not waited for."""
        screen = window.Window("test")
        for _ in range(3):
            screen.show(picture, 2)
        assert clock.now == pytest.approx(1.0)
        screen.close()

    def test_slow_steps_are_not_slowed_further(self, pygame: Any, clock: Clock, picture: Any) -> None:
        """A picture that was there long enough is replaced at once."""
        screen = window.Window("test")
        screen.show(picture, 2)
        clock.now = 7.0
        screen.show(picture, 2)
        assert clock.now == 7.0
        screen.close()

    def test_a_closed_window_is_not_waited_for(self, pygame: Any, clock: Clock, picture: Any) -> None:
        """Neither after the program nor after the user closed it."""
        screen = window.Window("test")
        screen.show(picture, 2)
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        screen.show(picture, 2)
        screen.show(picture, 2)
        assert screen.is_closed
        assert clock.now == 0.0


# --- Gymnasium's wrappers --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NAS-BlockQNN-v0", "NAS-Cell-v0"])
def test_an_episode_is_recorded_as_a_video(name: str, pygame: Any, tmp_path: Path) -> None:
    """One frame a reset and step, of the size of the pictures; the last frame is nearest to the last picture."""
    pytest.importorskip("moviepy")
    encoder = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    env = RecordVideo(make(name, "rgb_array"), str(tmp_path / "videos"))
    pictures = list(play(env))
    env.close()
    (path,) = (tmp_path / "videos").iterdir()
    command = [encoder, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    video = subprocess.run(command, capture_output=True, check=True).stdout
    decoded = np.frombuffer(video, np.uint8).reshape(-1, *pictures[0].shape).astype(int)
    assert len(decoded) == len(pictures)
    errors = [np.abs(frame - pictures[-1]).mean() for frame in decoded]
    assert np.argmin(errors) == len(errors) - 1


def test_pictures_can_be_collected(pygame: Any) -> None:
    """`RenderCollection` keeps one a reset and step."""
    env = RenderCollection(make(CELL, "rgb_array"))
    env.reset()
    for action in range(3):
        env.step(action)
    frames: Any = env.render()
    assert len(frames) == 4
    assert len({frame.tobytes() for frame in frames}) == 4


def test_lists_of_pictures_are_made_by_gymnasium(pygame: Any) -> None:
    """The mode "rgb_array_list" wraps it by itself."""
    env = make(CELL, "rgb_array_list")
    env.reset()
    env.step(0)
    assert len(env.render()) == 2  # type: ignore[arg-type]


@pytest.mark.usefixtures("fast")
def test_gymnasiums_window_shows_the_pictures(pygame: Any) -> None:
    """`HumanRendering` around pictures."""
    env = HumanRendering(make(CELL, "rgb_array"))
    env.reset()
    env.step(3)
    np.testing.assert_array_equal(shown(pygame), env.env.render())
    env.close()


def test_modes_are_named_in_the_message() -> None:
    """An unknown one is refused."""
    entry: Any = gymnasium.envs.registration.load_env_creator(ENVIRONMENTS[CELL].entry_point)
    with pytest.raises(InvalidArgument, match=", ".join(RENDER_MODES)):
        entry(evaluator="synthetic", render_mode="depth_array")
