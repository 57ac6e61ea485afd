"""Ending ``learn`` of Stable-Baselines3 at a budget of queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.envs.core.counter import Counter
from nas_gym.errors import BudgetExhausted, MissingExtra

try:
    from stable_baselines3.common.callbacks import BaseCallback

    from nas_gym.wrappers.sb3 import SB3VecEnv
except ImportError as error:
    raise MissingExtra("a benchmarked loop of Stable-Baselines3", "agents", error) from error


class StopAtBudget(BaseCallback):
    """Ends the learning once the budget is used."""

    def __init__(self, counter: Counter) -> None:
        """Watch a counter that has a budget."""
        super().__init__()
        self.counter = counter

    def _on_step(self) -> bool:
        return self.counter.remaining != 0


class ClosingVecEnv(SB3VecEnv):
    """An `SB3VecEnv` whose last step does not raise where more episodes end at once than queries are left.

    The episodes that fit are evaluated and counted; the step then returns as if nothing had happened: the last
    observations, no reward, no end. It is for `StopAtBudget`, which ends the learning right after it; any further step
    raises.
    """

    def __init__(self, envs: Any) -> None:  # noqa: ANN401 - a vector environment of nas-gym
        """Adapt an environment."""
        super().__init__(envs)
        self._seen: npt.NDArray[Any] = np.zeros(0)
        self._closed = False

    def reset(self) -> npt.NDArray[Any]:
        """Begin new episodes everywhere."""
        self._seen = super().reset()
        return self._seen

    def step_wait(
        self,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Take one decision in every sub-environment; see the class for the last step.

        Raises:
            BudgetExhausted: the step after the last.
        """
        if self._closed:
            raise BudgetExhausted("the budget is used up, and the step before said so; use sb3_callback().")
        try:
            outcome = super().step_wait()
        except BudgetExhausted:
            self._closed = True
            nothing = np.zeros(self.num_envs, np.float32)
            infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
            return self._seen, nothing, np.zeros(self.num_envs, np.bool_), infos
        self._seen = outcome[0]
        return outcome
