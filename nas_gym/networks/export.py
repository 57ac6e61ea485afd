"""From a trained network to files that load without nas-gym: weights, a torch program, ONNX and a model card.

Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import itertools
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nas_gym.errors import InvalidArgument, MissingExtra, NASGymError, RunExists
from nas_gym.files import write_whole

INPUT = "pixels"
"""Name of the input of every exported network."""

OUTPUT = "logits"
"""Name of its output."""

T = TypeVar("T")


class ExportError(NASGymError):
    """A network cannot be exported, or a file of an export cannot be written."""


class Deployed(nn.Module):
    """A network with the standardisation of its images: pixels float32 [N, C, H, W] -> logits [N, K].

    Pixels have the unit of the data set's images, 0 to 255 in image files.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Put the standardisation before `network`.

        Args:
            network: from standardised images to logits.
            mean: C numbers, in the unit of the pixels.
            deviation: C positive numbers, in the unit of the pixels.

        Raises:
            InvalidArgument: the numbers of channels differ, or a deviation is not positive.
        """
        super().__init__()
        if len(mean) != len(deviation) or not all(0 < value < math.inf for value in deviation):
            raise InvalidArgument(
                f"mean and deviation must have one number per channel, deviations above 0; got {mean} and {deviation}."
            )
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits."""
        return self.network((pixels - self.mean) / self.deviation)


@dataclass(frozen=True)
class FailedFormat:
    """A file that an export could not make.

    Attributes:
        file: its name.
        reason: why, in one line.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class ModelCard:
    """What somebody who receives the files must know.

    Attributes:
        name: of the model.
        architecture: in the notation of its search space.
        space: name of the search space.
        dataset: name of the data set.
        fingerprint: of the data set.
        class_names: K names, in the order of the logits.
        input_shape: (C, H, W) of an image.
        mean: C numbers that are subtracted from the pixels.
        deviation: C numbers that the differences are divided by.
        metrics: results by name, formatted.
        recipe: how it was trained, by the name of the setting.
        parameters: number of trainable parameters.
        multiply_adds: of one image.
        versions: by the name of the package.
        notes: further sentences.
    """

    name: str
    architecture: str
    space: str
    dataset: str
    fingerprint: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    metrics: Mapping[str, str]
    recipe: Mapping[str, object]
    parameters: int
    multiply_adds: int
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def markdown(self, failed: Sequence[FailedFormat] = ()) -> str:
        """Return the card; files in `failed` have their reason instead of their code."""
        reasons = {format_.file: format_.reason for format_ in failed}
        channels, height, width = self.input_shape
        facts = {
            "architecture": f"`{self.architecture}` of the search space `{self.space}`",
            "data set": f"`{self.dataset}`, fingerprint `{self.fingerprint}`",
            "input": f"`{INPUT}`: float32 [N, {channels}, {height}, {width}], in the unit of the data set's images "
            "(0 to 255 in image files); they are standardised inside",
            "output": f"`{OUTPUT}`: float32 [N, {len(self.class_names)}], in the order of `classes.json`",
            "parameters": f"{self.parameters:,}",
            "multiply-adds per image": f"{self.multiply_adds:,}",
        }
        parts = [
            f"# {self.name}",
            _bullets(facts),
            "## Results",
            _bullets(self.metrics),
            *(["## Notes", _bullets(self.notes)] if self.notes else []),
            "## Use",
        ]
        for file, title, code in self._snippets():
            parts.append(f"### {title}")
            parts.append(f"Not available: {reasons[file]}" if file in reasons else f"```python\n{code}```")
        parts += [
            "They belong to the network alone, as `nas_gym.networks.build` returns it; it expects standardised images: "
            f"subtract the mean {list(self.mean)} from every channel and divide by the deviation "
            f"{list(self.deviation)}.",
            "## Training",
            _bullets({name: f"`{json.dumps(value, default=str)}`" for name, value in self.recipe.items()}),
            "## Versions",
            _bullets(self.versions),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _snippets(self) -> Iterator[tuple[str, str, str]]:
        """Yield file, title and code of every way to load the model, to be run in its directory."""
        channels, height, width = self.input_shape
        yield "program.pt2", "PyTorch: `program.pt2`", _PROGRAM.format(shape=f"1, {channels}, {height}, {width}")
        image = {1: _IMAGE.format(mode="L"), 3: _IMAGE.format(mode="RGB")}.get(channels, _ARRAY)
        image = image.format(channels=channels, height=height, width=width)
        yield "model.onnx", "ONNX Runtime: `model.onnx`", _ONNX.format(image=image, input=INPUT, output=OUTPUT)
        yield "weights.safetensors", "Weights: `weights.safetensors`", _WEIGHTS


_PROGRAM = """\
import torch

network = torch.export.load("program.pt2").module()
pixels = torch.zeros({shape})  # your images
with torch.no_grad():
    logits = network(pixels)
print(logits.softmax(dim=1))
"""

_ONNX = """\
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

{image}
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(["{output}"], {{"{input}": pixels}})
print(json.loads(Path("classes.json").read_text(encoding="utf-8"))[logits[0].argmax()])
"""

_IMAGE = """\
image = Image.open("image.png").convert("{mode}").resize(({{width}}, {{height}}))  # your image
pixels = np.asarray(image, np.float32).reshape(1, {{height}}, {{width}}, {{channels}}).transpose(0, 3, 1, 2)"""

_ARRAY = """\
pixels = np.zeros((1, {channels}, {height}, {width}), np.float32)  # your images"""

_WEIGHTS = """\
from safetensors.torch import load_file

weights = load_file("weights.safetensors")  # for load_state_dict of the network
for name, tensor in sorted(weights.items()):
    print(name, tuple(tensor.shape))
"""


def export_onnx(model: nn.Module, input_shape: tuple[int, int, int], path: Path, batch: int | None = None) -> None:
    """Write a module in evaluation mode as one self-contained ONNX file; an older file is replaced at the end.

    Nothing is printed, and the module is not changed. The first export of a process takes some seconds.

    Args:
        model: [N, C, H, W] -> [N, K]; the input is called "pixels", the output "logits".
        input_shape: (C, H, W).
        path: file to write.
        batch: N; by default it is left open.

    Raises:
        ExportError: torch cannot export the module, or the file cannot be written.
        MissingExtra: a package that the export needs is not installed.
    """
    _require_onnx()
    path = Path(path)
    content = _attempt(
        "the network cannot be exported to ONNX", lambda: _onnx(_program(model, input_shape, batch), batch is None)
    )
    _write(path, content)


def export_model(model: nn.Module, directory: Path, card: ModelCard) -> list[FailedFormat]:
    """Write a trained network into a new directory, in all formats; the README is written last.

    The files: ``weights.safetensors`` (the state dict of `model`), ``program.pt2`` (`Deployed`, loads with torch
    alone), ``model.onnx`` (`Deployed`), ``classes.json`` and ``README.md``. The number of images is open in both
    programs. If a file cannot be written, those written before are removed again.

    Args:
        model: from standardised images [N, C, H, W] to logits [N, K]; it is not changed.
        directory: where to write; it may exist if it is empty.
        card: what README.md says.

    Returns:
        The programs that torch could not make of this network, e.g. because it branches on the values of a tensor.
        Their reasons are in the README too; weights and card are complete without them.

    Raises:
        RunExists: `directory` exists and is not empty.
        ExportError: a file cannot be written.
        MissingExtra: a package that the export needs is not installed; nothing was written.
    """
    _require_onnx()
    directory = Path(directory)
    if directory.exists() and not (directory.is_dir() and next(directory.iterdir(), None) is None):
        raise RunExists(f"{directory} exists already and is not empty; choose another directory for the export.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{directory}: cannot be made: {error.strerror or error}.") from error
    contents: dict[str, bytes] = {
        "weights.safetensors": _weights(model),
        "classes.json": json.dumps(list(card.class_names), ensure_ascii=False, indent=1).encode(),
    }
    programs, failed = _programs(Deployed(model, card.mean, card.deviation), card.input_shape)
    contents |= programs
    contents["README.md"] = card.markdown(failed).encode()
    written: list[Path] = []
    try:
        for name, content in contents.items():
            _write(directory / name, content)
            written.append(directory / name)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return failed


def _programs(deployed: Deployed, input_shape: tuple[int, int, int]) -> tuple[dict[str, bytes], list[FailedFormat]]:
    """Return the content of the files that torch can make, and the others with their reasons."""
    contents: dict[str, bytes] = {}
    try:
        program = _attempt("torch cannot export it", lambda: _program(deployed, input_shape, None))
    except ExportError as error:
        return contents, [FailedFormat(file, str(error)) for file in ("program.pt2", "model.onnx")]
    failed = []
    formats: dict[str, Callable[[ExportedProgram], bytes]] = {"program.pt2": _archive, "model.onnx": _onnx}
    for file, convert in formats.items():
        try:
            contents[file] = _attempt("torch cannot write it", lambda convert=convert: convert(program))
        except ExportError as error:
            failed.append(FailedFormat(file, str(error)))
    return contents, failed


def _attempt(problem: str, action: Callable[[], T]) -> T:
    """Run a part of torch's exporters in silence; whatever they raise becomes an `ExportError`."""
    try:
        with _quiet():
            return action()
    except MemoryError:
        raise
    except Exception as error:
        raise ExportError(f"{problem}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return the first line of what caused an error; exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what torch's exporters print, log and warn about."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Provide the module on the CPU in evaluation mode, and put back the mode of each of its parts."""
    tensors: Iterable[Tensor] = itertools.chain(model.parameters(), model.buffers())
    if any(tensor.device.type != "cpu" for tensor in tensors):
        yield copy.deepcopy(model).cpu().eval()  # programs remember the device, the receiver may have another
        return
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for part, training in modes:
            part.training = training


def _program(model: nn.Module, input_shape: tuple[int, int, int], batch: int | None) -> ExportedProgram:
    """Trace a module.

    Args:
        model: [N, C, H, W] -> [N, K].
        input_shape: (C, H, W).
        batch: N; open if None.
    """
    # Torch takes an example of one image for a constant, so an open number is shown as two.
    example = torch.zeros((2 if batch is None else batch, *input_shape))
    shapes = None if batch is not None else ({0: torch.export.Dim("batch", min=1)},)
    with _evaluating(model) as evaluated:
        program = torch.export.export(evaluated, (example,), dynamic_shapes=shapes)
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def _archive(program: ExportedProgram) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _onnx(program: ExportedProgram, is_open: bool = True) -> bytes:
    converted = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},) if is_open else None,  # names the open dimension
    )
    if converted is None:
        raise RuntimeError("torch returned no ONNX program")
    return converted.model_proto.SerializeToString()


def _weights(model: nn.Module) -> bytes:
    """Return the state dict as safetensors, every tensor by itself and dense."""
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    return safetensors.torch.save(state, {"format": "pt"})


def _require_onnx() -> None:
    for name in ("onnx", "onnxscript"):
        try:
            with _quiet():
                importlib.import_module(name)
        except ImportError as error:
            raise MissingExtra("the export to ONNX", "train", error) from error


def _write(path: Path, content: bytes) -> None:
    """Write a file that is either complete or not there."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _bullets(lines: Mapping[str, object] | Sequence[str]) -> str:
    if isinstance(lines, Mapping):
        lines = [f"{name}: {value}" for name, value in lines.items()]
    return "\n".join(f"- {line}" for line in lines)
