"""From rewards to returns.

Dimension letters: B episodes, T steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def returns_to_go(rewards: npt.NDArray[np.float64], discount: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the discounted sum of the rewards from every step on, shape [B, T].

    Args:
        rewards: zero beyond the end of an episode, shape [B, T].
        discount: factor per step, in [0, 1].

    >>> returns_to_go(np.array([[0.0, 0.0, 1.0]]), discount=0.5).tolist()
    [[0.25, 0.5, 1.0]]
    """
    result = np.zeros_like(rewards)
    following = np.zeros(len(rewards))
    for step in range(rewards.shape[1] - 1, -1, -1):
        following = rewards[:, step] + discount * following
        result[:, step] = following
    return result
