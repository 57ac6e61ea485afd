"""Exact pausing of a training: weights, optimiser, generators and progress in one safetensors file, without pickle.

A training that continues from a checkpoint takes the same steps, bit by bit, as one that was never paused. Tensors have
the shapes of their parameters; no dimension has a meaning here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nas_gym.errors import NASGymError
from nas_gym.files import write_whole

FORMAT = "nas-gym checkpoint 1"
"""What a file says it is, in its metadata."""

_STATEFUL_OPTIONS = ("momentum", "amsgrad", "centered")
"""Options of torch's optimisers that decide which tensors they keep; all others may change between two steps."""


class CheckpointError(NASGymError):
    """A checkpoint cannot be written, is damaged, or belongs to another training; nothing was changed."""


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    progress: Mapping[str, Any],
) -> None:
    """Write everything that the rest of a training depends on; an older file of that name is replaced at the end.

    The options of the optimiser (learning rate, decay, ...) are not written: whoever continues constructs it anew.

    Args:
        path: file to write.
        model: network; its whole state dict is written.
        optimiser: any optimiser whose state is made of tensors, e.g. SGD, Adam, RMSprop.
        generators: by a name of the caller's choice.
        progress: JSON values (epoch, curves, ...); floats return exactly, NaN and infinity included; tuples return
            as lists.

    Raises:
        CheckpointError: the file cannot be written, or something in it is neither a tensor nor a JSON value.
    """
    path = Path(path)
    tensors = _tensors(path, model, optimiser, generators)
    try:
        texts = {"progress": json.dumps(dict(progress)), "optimiser": json.dumps(_describe(optimiser))}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: progress must consist of JSON values: {error}.") from None
    texts["strides"] = json.dumps({name: tensor.stride() for name, tensor in tensors.items() if tensor.dim() > 1})
    texts["format"] = FORMAT
    # The copies are independent of each other, since safetensors refuses tied weights, and dense in the usual order.
    tensors = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    texts["sha256"] = _content_hash(tensors, texts)
    content = safetensors.torch.save(tensors, texts)
    try:
        write_whole(path, content)
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be written: {error.strerror or error}.") from error


def load_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, generators: Mapping[str, torch.Generator]
) -> dict[str, Any]:
    """Restore in place what `save_checkpoint` wrote; everything is checked before anything is changed.

    Args:
        path: file to read.
        model: network of the same architecture; its tensors keep their device and memory format.
        optimiser: one of the same class and kind over the same parameters.
        generators: generators of the same names and devices.

    Returns:
        The progress.

    Raises:
        CheckpointError: naming the file and what is wrong: it cannot be read, is damaged, or a tensor is missing, too
            much, of another shape or of another type.
    """
    path = Path(path)
    tensors, texts = read_checkpoint(path)
    expected, found = _describe(optimiser), json.loads(texts["optimiser"])
    if found != expected:
        raise CheckpointError(f"{path}: the checkpoint is of the optimiser {found}, not of {expected}.")
    state = {name: tensor for name, tensor in tensors.items() if name.startswith("optimiser.")}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    # A new optimiser holds no tensors yet. Those it will need are either numbers or shaped like their parameter.
    wanted = _tensors(path, model, None, generators)
    for name, tensor in state.items():
        shape = parameters[int(name.split(".")[1])].shape if tensor.dim() else ()
        wanted[name] = torch.empty(shape, dtype=tensor.dtype, device="meta")
    _check_tensors(path, wanted, tensors)
    strides = json.loads(texts["strides"])
    restored: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        _, index, key = name.split(".", 2)
        # Fused optimisers walk over raw memory: parameter and state must have the same order of elements.
        value = torch.empty_strided(tensor.shape, strides.get(name, tensor.stride()), dtype=tensor.dtype)
        restored.setdefault(int(index), {})[key] = value.copy_(tensor)
    model.load_state_dict({name.removeprefix("model."): tensors[name] for name in wanted if name.startswith("model.")})
    optimiser.load_state_dict({"state": restored, "param_groups": optimiser.state_dict()["param_groups"]})
    for name, generator in generators.items():
        generator.set_state(tensors[f"generator.{name}"])
    return json.loads(texts["progress"])


def _tensors(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    generators: Mapping[str, torch.Generator],
) -> dict[str, Tensor]:
    """Return all tensors by their names in the file: ``model.*``, ``optimiser.<parameter>.*``, ``generator.*``."""
    values = {f"model.{name}": value for name, value in model.state_dict().items()}
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            values |= {f"optimiser.{index}.{name}": value for name, value in state.items() if value is not None}
    values |= {f"generator.{name}": generator.get_state() for name, generator in generators.items()}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name} is no tensor but {type(value).__name__}, which cannot be written.")
    return values


def _describe(optimiser: torch.optim.Optimizer) -> list[str]:
    """Return what decides which tensors an optimiser keeps, one text per group of parameters."""
    described = []
    for group in optimiser.param_groups:
        options = [option for option in _STATEFUL_OPTIONS if group.get(option)]
        words = [type(optimiser).__name__, *([f"with {', '.join(options)}"] if options else [])]
        described.append(f"{' '.join(words)} over {len(group['params'])} parameters")
    return described


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the texts of a file that is what it was when it was written.

    Tensors are called ``model.<tensor>``, ``optimiser.<number of the parameter>.<key>`` and ``generator.<name>``; the
    text ``progress`` is JSON.

    Raises:
        CheckpointError: naming the file: it cannot be read, is damaged, or is no checkpoint.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read: {error.strerror or error}.") from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged: {error}.") from None
    if texts.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of a training ({FORMAT!r}).")
    if texts.pop("sha256", None) != _content_hash(tensors, texts):
        raise CheckpointError(f"{path}: the checkpoint is damaged: its content does not match its checksum.")
    return tensors, texts


def _check_tensors(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for problem, names in (("lacks", wanted.keys() - found.keys()), ("has an unknown", found.keys() - wanted.keys())):
        if names:
            raise CheckpointError(f"{path}: the checkpoint {problem} tensor {_listing(names)}.")
    for name, tensor in wanted.items():
        expected, received = _kind(tensor), _kind(found[name])
        if expected != received:
            raise CheckpointError(f"{path}: the tensor {name} is {received} in the checkpoint, expected {expected}.")


def _listing(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _content_hash(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {_kind(tensors[name])}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
