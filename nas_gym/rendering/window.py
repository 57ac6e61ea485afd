"""A window on the screen that shows one picture after the other."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument
from nas_gym.rendering.canvas import import_pygame

_NAP = 0.02
"""Seconds between two looks at the keyboard and the mouse while a picture stays."""


class Window:
    """Shows pictures at a limited rate until it is closed, by the program or by the user; then it does nothing.

    It opens with its first picture. pygame has one window a process: several objects of this class share it, and a
    copy of one is closed from the beginning.
    """

    def __init__(self, title: str) -> None:
        """Prepare a window.

        Args:
            title: words in its title bar.

        Raises:
            MissingExtra: pygame is not installed.
        """
        import_pygame("render_mode='human'")
        self._title = title
        self._closed = False
        self._opened = False
        self._shown_at = -np.inf

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy it as a closed one: what a copy of an environment does, a planner tries out."""
        return _closed, (self._title,)

    @property
    def is_closed(self) -> bool:
        """Whether the program or the user closed it."""
        return self._closed

    def show(self, picture: npt.NDArray[np.uint8], pictures_per_second: float) -> None:
        """Show a picture, at once or as soon as the one before was there long enough.

        Args:
            picture: uint8 [height, width, 3].
            pictures_per_second: above 0.

        Raises:
            InvalidArgument: there is no screen.
        """
        pygame = import_pygame("render_mode='human'")
        while not self._was_closed(pygame):
            rest = self._shown_at + 1 / pictures_per_second - time.monotonic()
            if rest <= 0:
                break
            time.sleep(min(rest, _NAP))
        if self._closed:
            return
        surface = self._surface(pygame, picture.shape[1], picture.shape[0])
        pygame.surfarray.blit_array(surface, picture.transpose(1, 0, 2))
        pygame.display.flip()
        self._shown_at = time.monotonic()

    def _was_closed(self, pygame: Any) -> bool:  # noqa: ANN401 - a module
        """Let the screen respond to the user; tell whether the window is closed."""
        if self._opened and pygame.display.get_init() and any(e.type == pygame.QUIT for e in pygame.event.get()):
            self.close()
        return self._closed

    def _surface(self, pygame: Any, width: int, height: int) -> Any:  # noqa: ANN401 - pygame.Surface
        """Return what the window shows; opened again where other code in the process closed or resized it."""
        try:
            pygame.display.init()
            surface = pygame.display.get_surface()
            if surface is None or surface.get_size() != (width, height):
                surface = pygame.display.set_mode((width, height))
                pygame.display.set_caption(self._title)
        except pygame.error as error:
            raise InvalidArgument(
                f"render_mode='human' cannot open a window: {error}. Without a screen, use render_mode='rgb_array' or "
                "'ansi', or record a video with gymnasium.wrappers.RecordVideo."
            ) from error
        self._opened = True
        return surface

    def close(self) -> None:
        """Close the window; later pictures are not shown."""
        self._closed = True
        if self._opened:
            import_pygame("render_mode='human'").display.quit()
            self._opened = False


def _closed(title: str) -> Window:
    window = Window(title)
    window.close()
    return window
