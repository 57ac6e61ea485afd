"""A vector environment as Stable-Baselines3 expects it.

Dimension letters: N sub-environments, C = `space.max_choices`.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from nas_gym.envs.core.base import Info, NASVectorEnv
from nas_gym.errors import InvalidArgument, MissingExtra

try:
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
except ImportError as error:
    raise MissingExtra("SB3VecEnv", "agents", error) from error

_OF_ONE = {"action_space": "single_action_space", "observation_space": "single_observation_space"}
"""What an attribute of a single environment is called in a vector environment."""


class SB3VecEnv(VecEnv):
    """Adapter from a vector environment of nas-gym to the `VecEnv` of Stable-Baselines3 and sb3-contrib.

    It returns what SB3's `DummyVecEnv` of as many single environments returns, several times as fast: all
    sub-environments take their step in arrays and all architectures that are complete are evaluated in one batch.
    Every autoreset mode can be driven. "SameStep" resets as SB3 does; in "NextStep" and "Disabled" the adapter begins
    new episodes itself right after the step, so that no step is lost and observation wrappers of Gymnasium, which
    refuse "SameStep", may lie in between.

    An info is ``{"TimeLimit.truncated": False}`` while the episode goes on (the masks come from
    ``env_method("action_masks")``). At its end it has ``terminal_observation``, everything that the environment
    reports (``encoding``, ``status``, ``metrics``, ``cost_seconds``, ``action_mask``, after a failure ``message``)
    and ``episode``, the statistics of SB3's `Monitor`: return ``r``, length ``l``, seconds since the start ``t``.
    ``env_is_wrapped(Monitor)`` is therefore true: `evaluate_policy` reads the statistics, and `VecMonitor`, which
    is not needed, warns that it replaces them.

    The sub-environments share evaluator, objective and counter, so ``set_attr`` sets an attribute of all of them, and
    ``env_method`` calls ``action_masks`` and ``render`` only.

    Attributes:
        envs: the vector environment.
        spec: its specification.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        """Adapt an environment.

        Args:
            envs: made by ``gymnasium.make_vec(id, num_envs=N, vectorization_mode="vector_entry_point")``, perhaps
                inside vector wrappers.

        Raises:
            InvalidArgument: `envs` is no vector environment of nas-gym.
        """
        if not isinstance(envs, VectorEnv) or not isinstance(envs.unwrapped, NASVectorEnv):
            raise InvalidArgument(
                f"SB3VecEnv adapts a vector environment of nas-gym, got {envs!r}; make one with "
                'gymnasium.make_vec(id, num_envs=8, vectorization_mode="vector_entry_point").'
            )
        self.envs = envs
        self.spec = envs.spec
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._resets_itself = envs.unwrapped.autoreset_mode is AutoresetMode.SAME_STEP
        self._actions: npt.NDArray[Any] = np.zeros(0, np.int64)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._started = time.time()

    # --- episodes ----------------------------------------------------------------------------------

    def reset(self) -> npt.NDArray[Any]:
        """Begin new episodes everywhere, with the seeds of `seed` and the options of `set_options`, both used once.

        Raises:
            InvalidArgument: the options differ between sub-environments, or an unknown option.
            FidelityError: the evaluator cannot answer the fidelity.
        """
        options = self._options[0]
        if any(one != options for one in self._options) or "reset_mask" in options:
            raise InvalidArgument(
                f"the options must be those of a single environment and the same for all, got {self._options!r}."
            )
        seeds: Any = None if all(seed is None for seed in self._seeds) else self._seeds
        observations, _ = self.envs.reset(seed=seeds, options=dict(options))
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Remember the actions for `step_wait`."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Take one decision in every sub-environment and begin new episodes where one ended.

        Raises:
            InvalidAction: the actions are not N integers inside the action space.
            EpisodeOver: nothing was reset yet.
            BudgetExhausted: no query is left for all architectures that are complete.
        """
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        dones = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if dones.any():
            rows = np.flatnonzero(dones)
            if self._resets_itself:
                info, last = info["final_info"], info["final_obs"]
            else:
                last = observations
                observations, _ = self.envs.reset(options={"reset_mask": dones})
            only_truncated = (truncated & ~terminated)[rows].tolist()
            for row, final, cut in zip(rows.tolist(), self._final_infos(info, rows), only_truncated, strict=True):
                infos[row] = final
                final["TimeLimit.truncated"] = cut
                final["terminal_observation"] = _row(last, row)
        return observations, rewards.astype(np.float32), dones, infos

    def _final_infos(self, info: Info, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the infos of ended episodes and begin new statistics there."""
        finals = _info_rows(info, rows)
        elapsed = round(time.time() - self._started, 6)
        returns, lengths = self._returns[rows].round(6).tolist(), self._lengths[rows].tolist()
        for final, total, length in zip(finals, returns, lengths, strict=True):
            final["episode"] = {"r": total, "l": length, "t": elapsed}
        self._returns[rows] = 0
        self._lengths[rows] = 0
        return finals

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, shape [N, C]."""
        return self._attribute("action_masks")()

    def close(self) -> None:
        """Release what the evaluator holds: worker processes, files."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Return a picture of every architecture so far; None each without the render mode "rgb_array"."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"pictures need render_mode='rgb_array', not {self.render_mode!r}.", stacklevel=2)
            return [None] * self.num_envs
        images: Any = self.envs.render()
        return list(images)

    # --- attributes of the sub-environments --------------------------------------------------------

    def _layers(self) -> Iterator[VectorEnv[Any, Any, Any]]:
        """Iterate over the vector environment and what it wraps, from the outside in."""
        layer = self.envs
        while isinstance(layer, VectorWrapper):
            yield layer
            layer = layer.env
        yield layer

    def _attribute(self, name: str) -> Any:  # noqa: ANN401 - any attribute
        """Return an attribute of the outermost layer that has it.

        Raises:
            AttributeError: none has it.
        """
        for layer in self._layers():
            if hasattr(layer, name):
                return getattr(layer, name)
        raise AttributeError(f"the environments have no attribute {name!r}.")

    def has_attr(self, attr_name: str) -> bool:
        """Tell whether the sub-environments have an attribute, as `get_attr` finds it."""
        try:
            self.get_attr(attr_name, [])
        except AttributeError:
            return False
        return True

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of sub-environments, which is the same object for all but methods.

        Args:
            attr_name: e.g. ``"render_mode"``, ``"space"``, ``"counter"``, ``"spec"``.
            indices: of which sub-environments, None = all.

        Raises:
            AttributeError: there is none, or it is a method that acts on all sub-environments at once.
        """
        rows = self._get_indices(indices)
        if attr_name in ("action_masks", "render"):
            return [partial(self._of_row, self._attribute(attr_name), row) for row in rows]
        value = self._attribute(_OF_ONE.get(attr_name, attr_name))
        if inspect.ismethod(value):
            raise AttributeError(
                f"{attr_name!r} acts on all sub-environments at once; call it on `envs`. "
                "Of single sub-environments, action_masks and render can be called."
            )
        return [value for _ in rows]

    @staticmethod
    def _of_row(method: Any, row: int) -> Any:  # noqa: ANN401 - a method of the vector environment and its value
        values = method()
        return None if values is None else values[row]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:  # noqa: ANN401 - any attribute
        """Set an attribute of all sub-environments, where it is found, else outermost.

        Raises:
            InvalidArgument: `indices` are not all sub-environments.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise InvalidArgument(
                f"the sub-environments share their attributes: {attr_name!r} can be set for all of them only, "
                f"got the indices {indices!r}."
            )
        name = _OF_ONE.get(attr_name, attr_name)
        setattr(next((layer for layer in self._layers() if hasattr(layer, name)), self.envs), name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ANN401 - SB3's signature
        indices: VecEnvIndices = None,
        **method_kwargs: Any,  # noqa: ANN401
    ) -> list[Any]:
        """Call ``action_masks`` or ``render`` of sub-environments; no other method acts on single ones.

        Raises:
            AttributeError: another method.
        """
        if method_name == "action_masks" and not method_args and not method_kwargs:
            masks = self.action_masks()
            return list(masks) if indices is None else [masks[row] for row in self._get_indices(indices)]
        return [method(*method_args, **method_kwargs) for method in self.get_attr(method_name, indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell whether sub-environments have a wrapper; `Monitor`, whose statistics the infos have, counts as one."""
        wrapped = issubclass(wrapper_class, Monitor) or any(
            isinstance(layer, wrapper_class) for layer in self._layers()
        )
        return [wrapped for _ in self._get_indices(indices)]


def _row(observations: Any, row: int) -> Any:  # noqa: ANN401 - an array, or a dictionary of arrays
    if isinstance(observations, dict):
        return {name: part[row] for name, part in observations.items()}
    return observations[row]


def _info_rows(columns: Info, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the infos of some sub-environments from columns as Gymnasium's vector environments lay them out.

    Numbers become Python's, as in the infos of a single environment.
    """
    infos: list[dict[str, Any]] = [{} for _ in rows]
    for name, column in columns.items():
        if f"_{name}" not in columns:  # It says which rows have a value; what lacks it belongs to no row.
            continue
        if isinstance(column, dict):
            values: Sequence[Any] = _info_rows(column, rows)
        else:
            found = column[rows]
            values = found.tolist() if found.ndim == 1 else list(found)
        present = columns[f"_{name}"][rows]
        if present.all():  # The rule, and a third faster.
            for info, value in zip(infos, values, strict=True):
                info[name] = value
            continue
        for info, value, there in zip(infos, values, present.tolist(), strict=True):
            if there:
                info[name] = value
    return infos
