"""From a finished or unfinished architecture to text, a picture or a window.

Text and picture are pure functions of a search space and the decisions taken. What they draw comes from
`SearchSpace.sketch` alone, so that a new space is drawn without a line here.
"""

from nas_gym.rendering.picture import render_rgb
from nas_gym.rendering.text import render_text
from nas_gym.rendering.window import Window

__all__ = ["Window", "render_rgb", "render_text"]
