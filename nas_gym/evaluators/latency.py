"""How long a network takes for one batch, measured before it is trained.

Dimension letters: N images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import re
import shlex
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from nas_gym.errors import InvalidArgument, NASGymError
from nas_gym.networks.export import ExportError, export_onnx
from nas_gym.registry import resolve

PLACEHOLDER = "{onnx}"
"""Stands for the path of the ONNX file in a command."""

FORMS = (
    "allowed: 'local', 'local:threads=2,warm_up=10,repeats=50', 'module:function' (called with the path of an ONNX "
    f"file, returns milliseconds), or a command with {PLACEHOLDER} that prints milliseconds as its last line"
)
"""What `parse_latency` accepts, for messages."""

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_LINES = 5


class LatencyError(NASGymError):
    """A latency cannot be measured: the user's function or command failed or gave no usable number."""


class Latency(Protocol):
    """A way to measure the latency; it has a value, crosses process boundaries and is a key of caches."""

    @property
    def batch(self) -> int:
        """N."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that differs between ways that give different numbers."""
        ...

    def __call__(self, model: nn.Module, input_shape: tuple[int, int, int], device: str = "cpu") -> float:
        """Return the seconds that one batch takes.

        Args:
            model: [N, C, H, W] -> logits; it is not changed.
            input_shape: (C, H, W).
            device: where to compute, for what is measured on this machine.

        Raises:
            LatencyError: there is no number.
        """
        ...

    def describe(self, device: str = "cpu") -> str:
        """Return how it is measured, for reports."""
        ...


@dataclass(frozen=True)
class LocalLatency:
    """The median over some runs on this machine, in evaluation mode and the memory format channels-last.

    Attributes:
        batch: N.
        threads: of the CPU.
        warm_up: runs that are not counted.
        repeats: runs that are counted.
    """

    batch: int = 1
    threads: int = 1
    warm_up: int = 10
    repeats: int = 50

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        for name, least in (("batch", 1), ("threads", 1), ("warm_up", 0), ("repeats", 1)):
            _check_least(name, getattr(self, name), least)

    @property
    def fingerprint(self) -> str:
        """The settings; the machine is not among them."""
        return "local " + " ".join(f"{name}={value}" for name, value in asdict(self).items())

    def describe(self, device: str = "cpu") -> str:
        """Return how it is measured."""
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return f"median of {self.repeats} after {self.warm_up}, batch {self.batch}, {threads}, {device}"

    def __call__(self, model: nn.Module, input_shape: tuple[int, int, int], device: str = "cpu") -> float:
        """Return the median of the seconds per batch."""
        # A copy: training must find the network as it was, wherever it lay and in whatever mode.
        measured = copy.deepcopy(model).to(device).to(memory_format=torch.channels_last).eval()
        images = torch.rand((self.batch, *input_shape), generator=torch.Generator().manual_seed(0))
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else None
        with _threads(self.threads), torch.inference_mode():
            seconds = [_timed(measured, images, wait) for _ in range(self.warm_up + self.repeats)]
        return statistics.median(seconds[self.warm_up :])


@dataclass(frozen=True)
class FunctionLatency:
    """What a function of the user says about an ONNX file with a fixed batch.

    Attributes:
        target: ``"module:function"``; it gets the path (str) and returns milliseconds.
        batch: N.
    """

    target: str
    batch: int = 1

    def __post_init__(self) -> None:
        """Check the values; the module is not imported yet.

        Raises:
            InvalidArgument: no target, or a batch below 1.
        """
        if not _FUNCTION.fullmatch(self.target):
            raise InvalidArgument(f"{self.target!r} is not of the form 'module:function'.")
        _check_least("batch", self.batch, 1)

    @property
    def fingerprint(self) -> str:
        """The name of the function and the batch."""
        return f"function {self.target} batch={self.batch}"

    def describe(self, device: str = "cpu") -> str:
        """Return how it is measured."""
        return f"{self.target}, batch {self.batch}"

    def __call__(self, model: nn.Module, input_shape: tuple[int, int, int], device: str = "cpu") -> float:
        """Return the seconds per batch.

        Raises:
            LatencyError: the function is missing, raised, or returned no number of milliseconds.
        """
        function = self._function()
        with _onnx_file(model, input_shape, self.batch) as path:
            try:
                answer = function(str(path))
            except MemoryError:
                raise
            except Exception as error:
                raise LatencyError(f"latency {self.target!r} raised {type(error).__name__}: {error}") from error
        try:
            milliseconds = float(answer)
        except (TypeError, ValueError):
            raise LatencyError(
                f"latency {self.target!r} must return milliseconds, got {type(answer).__name__} {answer!r:.80}."
            ) from None
        return _seconds(f"latency {self.target!r}", milliseconds)

    def _function(self) -> Callable[[str], Any]:
        try:
            function = resolve(self.target)
        except InvalidArgument as error:
            raise LatencyError(f"latency: {error}") from None
        except MemoryError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise LatencyError(f"latency {self.target!r}: the module cannot be imported: {reason}") from error
        if not callable(function):
            raise LatencyError(f"latency {self.target!r} is no function but {type(function).__name__}.")
        return function


@dataclass(frozen=True)
class CommandLatency:
    """What a command of the user prints about an ONNX file with a fixed batch; no shell is involved.

    Attributes:
        command: words as a shell would split them, ``{onnx}`` among them; the last line it prints is milliseconds.
        batch: N.
        timeout: seconds after which the command is ended.
    """

    command: str
    batch: int = 1
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Check the values; nothing is run yet.

        Raises:
            InvalidArgument: a command that cannot be split or lacks the placeholder, or a value outside its range.
        """
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise InvalidArgument(f"the command {self.command!r} cannot be split into words: {error}.") from None
        if not any(PLACEHOLDER in word for word in words):
            raise InvalidArgument(f"the command {self.command!r} lacks {PLACEHOLDER}, the path of the network.")
        _check_least("batch", self.batch, 1)
        if not 0 < self.timeout < math.inf:
            raise InvalidArgument(f"timeout must be a positive number of seconds, got {self.timeout}.")

    @property
    def fingerprint(self) -> str:
        """The command and the batch."""
        return f"command batch={self.batch} {self.command}"

    def describe(self, device: str = "cpu") -> str:
        """Return how it is measured."""
        return f"{self.command}, batch {self.batch}"

    def __call__(self, model: nn.Module, input_shape: tuple[int, int, int], device: str = "cpu") -> float:
        """Return the seconds per batch.

        Raises:
            LatencyError: the command cannot be started, failed, took too long, or printed no number of milliseconds.
        """
        what = f"latency command {self.command!r}"
        with _onnx_file(model, input_shape, self.batch) as path:
            printed = self._run(what, [word.replace(PLACEHOLDER, str(path)) for word in shlex.split(self.command)])
        lines = printed.split("\n")
        try:
            milliseconds = float(next(line for line in reversed(lines) if line.strip()))
        except (StopIteration, ValueError):
            raise LatencyError(
                f"{what} must print milliseconds as its last line; {_tail('it printed', printed)}"
            ) from None
        return _seconds(what, milliseconds)

    def _run(self, what: str, words: list[str]) -> str:
        """Return what the command prints."""
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                process_group=0,  # so that what the command starts can be ended with it
            )
        except OSError as error:
            raise LatencyError(f"{what} cannot be started: {error.strerror or error}.") from None
        with process:
            try:
                printed, complaints = process.communicate(timeout=self.timeout)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise LatencyError(f"{what} was ended after {self.timeout:g} seconds.") from None
                raise
        if process.returncode:
            raise LatencyError(f"{what} failed with exit code {process.returncode}; {_tail('stderr', complaints)}")
        return printed


def parse_latency(text: str, batch: int = 1) -> Latency:
    """Return what a text of the user means; nothing is imported, run or measured.

    Args:
        text: ``"local"``, ``"local:threads=2"``, ``"module:function"`` or a command that contains ``{onnx}``.
        batch: N.

    Raises:
        InvalidArgument: another text, or a value outside its range; the message lists the forms.
    """
    if PLACEHOLDER in text:
        return CommandLatency(text, batch)
    name, _, options = text.partition(":")
    if text == "local" or (name == "local" and options):
        return LocalLatency(batch, **_options(text, options))
    if _FUNCTION.fullmatch(text):
        return FunctionLatency(text, batch)
    raise InvalidArgument(f"cannot read the latency {text!r}; {FORMS}.")


def _options(text: str, options: str) -> dict[str, int]:
    """Read ``"threads=2,repeats=20"``."""
    found: dict[str, int] = {}
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name not in ("threads", "warm_up", "repeats") or not value.isdecimal() or name in found:
            raise InvalidArgument(f"cannot read {option!r} in the latency {text!r}; {FORMS}.")
        found[name] = int(value)
    return found


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidArgument(f"{name} of a latency must be at least {least}, got {value}.")


def _timed(model: nn.Module, images: torch.Tensor, wait: Callable[[], None] | None) -> float:
    """Return the seconds of one run, until the device has finished."""
    if wait is not None:
        wait()
    started = time.perf_counter()
    model(images)
    if wait is not None:
        wait()
    return time.perf_counter() - started


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _onnx_file(model: nn.Module, input_shape: tuple[int, int, int], batch: int) -> Iterator[Path]:
    """Provide the network as a temporary file."""
    with tempfile.TemporaryDirectory(prefix="nas-gym-latency-") as directory:
        path = Path(directory) / "model.onnx"
        try:
            export_onnx(model, input_shape, path, batch)
        except ExportError as error:
            raise LatencyError(f"no latency: {error}") from error
        yield path


def _tail(name: str, text: str) -> str:
    lines = text.strip().splitlines()[-_LINES:]
    return f"{name}:\n" + "\n".join(lines) if lines else f"{name}: nothing."


def _seconds(what: str, milliseconds: float) -> float:
    if not 0 <= milliseconds < math.inf:
        raise LatencyError(f"{what} must give milliseconds of at least 0, got {milliseconds}.")
    return milliseconds / 1000
