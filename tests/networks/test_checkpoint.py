"""Checkpoints: a training that was paused goes on exactly as if it had not been, and no wrong file is accepted."""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from nas_gym.networks.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

Optimisers = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMISERS: dict[str, Optimisers] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "fused sgd": lambda model: torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, fused=True),
    "sgd without momentum": lambda model: torch.optim.SGD(model.parameters(), 0.05),
    "adam": lambda model: torch.optim.Adam(model.parameters(), 0.01, weight_decay=1e-3),
    "fused adam": lambda model: torch.optim.Adam(model.parameters(), 0.01, fused=True),
    "amsgrad": lambda model: torch.optim.Adam(model.parameters(), 0.01, amsgrad=True),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), 0.01),
    "centred rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), 0.01, momentum=0.9, centered=True),
}


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0, width: int = 6) -> nn.Sequential:
    """Return a small network with convolutions, a normalisation and a linear layer, as trainings lay it out."""
    model = nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    source = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=source)
    return model.to(memory_format=torch.channels_last)


@dataclass
class Run:
    """A training that can be advanced, saved and loaded; its two generators draw the images and the noise."""

    model: nn.Sequential
    optimiser: torch.optim.Optimizer
    generators: dict[str, torch.Generator] = field(
        default_factory=lambda: {"order": generator(1), "augmentation": generator(2)}
    )

    @classmethod
    def new(cls, optimiser: Optimisers = OPTIMISERS["sgd"], seed: int = 0) -> Run:
        """Return a training that has not begun."""
        model = network(seed)
        return cls(model, optimiser(model))

    def advance(self, updates: int = 3) -> Run:
        """Train on random images."""
        self.model.train()
        for _ in range(updates):
            images = torch.randn((8, 2, 4, 4), generator=self.generators["order"])
            images = images.to(memory_format=torch.channels_last)
            noise = torch.randn(images.shape, generator=self.generators["augmentation"])
            loss = self.model(images + 0.1 * noise).square().mean()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
        return self

    def save(self, path: Path, progress: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint."""
        save_checkpoint(path, self.model, self.optimiser, self.generators, progress or {})
        return path

    def load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint."""
        return load_checkpoint(path, self.model, self.optimiser, self.generators)


def model_tensors(run: Run) -> dict[str, torch.Tensor]:
    """Return a copy of weights and statistics."""
    return copy.deepcopy(run.model.state_dict())


def optimiser_tensors(run: Run) -> dict[str, torch.Tensor]:
    """Return a copy of what the optimiser remembers."""
    state = run.optimiser.state_dict()["state"]
    return {f"{i}.{name}": value.clone() for i, kept in state.items() for name, value in kept.items()}


def assert_equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Compare tensors bit by bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the checkpoint goes."""
    return tmp_path / "training.safetensors"


@pytest.fixture
def saved(path: Path) -> Path:
    """Return a checkpoint of a training with SGD and momentum after three updates."""
    return Run.new().advance().save(path)


# --- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", [pytest.param(make, id=name) for name, make in OPTIMISERS.items()])
def test_a_paused_training_goes_on_exactly(optimiser: Optimisers, path: Path) -> None:
    """Weights and statistics after three and five updates are those after eight, bit by bit."""
    unpaused = Run.new(optimiser).advance(8)
    Run.new(optimiser).advance(3).save(path)
    paused = Run.new(optimiser, seed=9)
    paused.load(path)
    assert_equal(model_tensors(paused.advance(5)), model_tensors(unpaused))


@pytest.mark.parametrize("optimiser", [pytest.param(make, id=name) for name, make in OPTIMISERS.items()])
def test_the_optimiser_remembers_the_same(optimiser: Optimisers, path: Path) -> None:
    """Momenta, averages and step counts of the next update are those without a pause."""
    unpaused = Run.new(optimiser).advance(4)
    Run.new(optimiser).advance(3).save(path)
    paused = Run.new(optimiser, seed=9)
    paused.load(path)
    assert_equal(optimiser_tensors(paused.advance(1)), optimiser_tensors(unpaused))


def test_saving_changes_nothing(path: Path) -> None:
    """A training that writes checkpoints is the one that does not."""
    run = Run.new().advance(3)
    run.save(path)
    assert_equal(model_tensors(run.advance(5)), model_tensors(Run.new().advance(8)))


def test_the_statistics_of_normalisations_return(saved: Path) -> None:
    """The number of updates they saw included."""
    run = Run.new(seed=9)
    run.load(saved)
    statistics = {name: value for name, value in run.model.state_dict().items() if name.startswith("1.")}
    expected = Run.new().advance().model.state_dict()
    assert int(statistics["1.num_batches_tracked"]) == 3
    assert_equal(statistics, {name: expected[name] for name in statistics})


def test_generators_go_on_where_they_were(saved: Path) -> None:
    """Each draws what it would have drawn next."""
    run, unpaused = Run.new(), Run.new().advance()
    run.load(saved)
    assert [torch.rand(1, generator=run.generators[name]) for name in run.generators] == [
        torch.rand(1, generator=unpaused.generators[name]) for name in run.generators
    ]


def test_a_checkpoint_before_the_first_update_is_allowed(path: Path) -> None:
    """The optimiser remembers nothing yet."""
    Run.new().save(path)
    run = Run.new(seed=9)
    run.load(path)
    assert_equal(model_tensors(run.advance()), model_tensors(Run.new().advance()))


def test_frozen_parameters_have_no_state(path: Path) -> None:
    """An optimiser that never saw a gradient of some parameters goes on with the others."""

    def frozen() -> Run:
        run = Run.new(OPTIMISERS["adam"])
        run.model[0].requires_grad_(requires_grad=False)
        return run

    frozen().advance(3).save(path)
    paused = frozen()
    paused.load(path)
    assert_equal(model_tensors(paused.advance(2)), model_tensors(frozen().advance(5)))


def test_tied_weights_stay_tied(path: Path) -> None:
    """A parameter with two names is written and read under both."""

    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    original, restored = tied(), tied()
    save_checkpoint(path, original, torch.optim.SGD(original.parameters(), 0.1), {}, {})
    load_checkpoint(path, restored, torch.optim.SGD(restored.parameters(), 0.1), {})
    assert restored.get_parameter("0.weight") is restored.get_parameter("1.weight")
    assert torch.equal(restored.get_parameter("1.weight"), original.get_parameter("0.weight"))


def test_loading_happens_in_place(saved: Path) -> None:
    """The optimiser still updates the parameters of the network."""
    run = Run.new(seed=9)
    before = list(run.model.parameters())
    run.load(saved)
    assert all(one is other for one, other in zip(before, run.model.parameters(), strict=True))


def test_a_loaded_learning_rate_is_the_caller_s(saved: Path) -> None:
    """Options of the optimiser are not part of a checkpoint."""
    run = Run.new(lambda model: torch.optim.SGD(model.parameters(), 0.123, momentum=0.5))
    run.load(saved)
    assert (run.optimiser.param_groups[0]["lr"], run.optimiser.param_groups[0]["momentum"]) == (0.123, 0.5)


# --- memory layout ---------------------------------------------------------------------------------


def test_parameters_keep_the_memory_format(saved: Path) -> None:
    """A network in channels_last stays in it."""
    run = Run.new(seed=9)
    run.load(saved)
    assert run.model.get_parameter("0.weight").stride() == network().get_parameter("0.weight").stride()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_optimiser_tensors_keep_the_memory_format(name: str, path: Path) -> None:
    """A momentum lies in memory as it did before the pause."""
    original = Run.new(OPTIMISERS[name]).advance()
    original.save(path)
    run = Run.new(OPTIMISERS[name])
    run.load(path)
    strides = {key: value.stride() for key, value in optimiser_tensors(run).items()}
    assert strides == {key: value.stride() for key, value in optimiser_tensors(original).items()}


def test_a_checkpoint_is_read_into_another_memory_format(saved: Path) -> None:
    """The values do not depend on how either network lies in memory."""
    run = Run.new(seed=9)
    run.model.to(memory_format=torch.contiguous_format)
    run.load(saved)
    assert_equal(model_tensors(run), model_tensors(Run.new().advance()))


# --- progress --------------------------------------------------------------------------------------


def test_progress_returns_as_it_was(path: Path) -> None:
    """Nested JSON values come back equal."""
    progress = {"epoch": 3, "curves": {"valid": [0.1, None]}, "restarts": [], "name": "Köln", "done": False}
    Run.new().save(path, progress)
    assert Run.new().load(path) == progress


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.nan]
)
def test_floats_return_bit_by_bit(value: float, path: Path) -> None:
    """Loss curves of a resumed training are those of the unpaused one, infinities and NaN included."""
    Run.new().save(path, {"loss": value})
    assert struct.pack("d", Run.new().load(path)["loss"]) == struct.pack("d", value)


@pytest.mark.parametrize("value", [pytest.param({1, 2}, id="set"), pytest.param(np.arange(2), id="array")])
def test_progress_that_is_not_json_is_refused(value: object, path: Path) -> None:
    """The message says so, and no file is written."""
    with pytest.raises(CheckpointError, match=r"training\.safetensors: progress must consist of JSON values"):
        Run.new().save(path, {"value": value})
    assert not path.exists()


# --- files -----------------------------------------------------------------------------------------


def test_a_checkpoint_replaces_the_older_one(path: Path) -> None:
    """The file holds the last one alone, and nothing lies beside it."""
    run = Run.new()
    run.save(path, {"epoch": 1})
    run.save(path, {"epoch": 2})
    assert Run.new().load(path) == {"epoch": 2}
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_older_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses what was done since, not what was saved before, and leaves no half file."""
    run = Run.new()
    run.save(path, {"epoch": 1})

    def full(file: Path, content: bytes) -> None:
        file.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match=r"training\.safetensors: .*cannot be written: No space left on device"):
        run.save(path, {"epoch": 2})
    assert Run.new().load(path) == {"epoch": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_named(path: Path) -> None:
    """The message says that it cannot be read."""
    with pytest.raises(CheckpointError, match=r"training\.safetensors: the checkpoint cannot be read"):
        Run.new().load(path)


def cut(content: bytearray) -> bytearray:
    """Drop the last byte."""
    return content[:-1]


def cut_header(content: bytearray) -> bytearray:
    """Keep the first hundred bytes."""
    return content[:100]


def flip(content: bytearray) -> bytearray:
    """Change one bit of the last tensor."""
    content[-1] ^= 1
    return content


def scramble(content: bytearray) -> bytearray:
    """Overwrite the header."""
    content[20:60] = b"\xff" * 40
    return content


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, id="last byte lost"),
        pytest.param(cut_header, id="header cut"),
        pytest.param(scramble, id="header overwritten"),
        pytest.param(flip, id="one bit flipped"),
        pytest.param(lambda content: bytearray(), id="empty"),
        pytest.param(lambda content: bytearray(b"PK\x03\x04 a file of another format"), id="foreign"),
    ],
)
def test_a_damaged_file_is_refused(damage: Callable[[bytearray], bytearray], saved: Path) -> None:
    """No damage goes unnoticed, not even a single bit."""
    saved.write_bytes(damage(bytearray(saved.read_bytes())))
    with pytest.raises(CheckpointError, match=r"training\.safetensors: the checkpoint is damaged"):
        Run.new().load(saved)


def test_tensors_of_somebody_else_are_no_checkpoint(path: Path) -> None:
    """A plain file of weights is refused."""
    safetensors.torch.save_file(network().to(memory_format=torch.contiguous_format).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"training\.safetensors: not a checkpoint"):
        Run.new().load(path)


def test_altered_progress_is_refused(saved: Path) -> None:
    """The checksum covers the texts of the file too."""
    content = saved.read_bytes()
    saved.write_bytes(content.replace(b'"progress":"{}"', b'"progress":"[]"'))
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        Run.new().load(saved)


# --- strictness ------------------------------------------------------------------------------------


def refusal(saved: Path, run: Run) -> str:
    """Return the message of a refused load, which must have changed nothing."""
    before = model_tensors(run), [one.get_state() for one in run.generators.values()]
    with pytest.raises(CheckpointError) as raised:
        run.load(saved)
    assert_equal(model_tensors(run), before[0])
    assert all(torch.equal(one.get_state(), old) for one, old in zip(run.generators.values(), before[1], strict=True))
    assert run.optimiser.state_dict()["state"] == {}
    return str(raised.value).removeprefix(f"{saved}: ")


def test_a_missing_tensor_is_named(saved: Path) -> None:
    """A buffer that the network has and the file has not."""
    run = Run.new()
    run.model.register_buffer("extra", torch.zeros(2))
    assert refusal(saved, run) == "the checkpoint lacks tensor model.extra."


def test_a_tensor_too_much_is_named(path: Path) -> None:
    """A buffer that the file has and the network has not."""
    run = Run.new().advance()
    run.model.register_buffer("extra", torch.zeros(2))
    assert refusal(run.save(path), Run.new()) == "the checkpoint has an unknown tensor model.extra."


def test_another_shape_is_named(saved: Path) -> None:
    """A wider network is another one."""
    model = network(width=7)
    message = refusal(saved, Run(model, OPTIMISERS["sgd"](model)))
    assert (
        message == "the tensor model.0.weight is float32 [6, 2, 3, 3] in the checkpoint, expected float32 [7, 2, 3, 3]."
    )


def test_another_type_of_numbers_is_named(saved: Path) -> None:
    """Half precision is not exact."""
    model = network().half()
    message = refusal(saved, Run(model, OPTIMISERS["sgd"](model)))
    assert (
        message == "the tensor model.0.weight is float32 [6, 2, 3, 3] in the checkpoint, expected float16 [6, 2, 3, 3]."
    )


def test_parameters_in_another_order_are_refused(saved: Path) -> None:
    """Momenta of one parameter never become those of another."""
    model = network()
    optimiser = torch.optim.SGD(list(model.parameters())[::-1], 0.05, momentum=0.9)
    message = refusal(saved, Run(model, optimiser))
    assert message == (
        "the tensor optimiser.0.momentum_buffer is float32 [6, 2, 3, 3] in the checkpoint, expected float32 [3]."
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("adam", "Adam over 10 parameters", id="another algorithm"),
        pytest.param("sgd without momentum", "SGD over 10 parameters", id="another kind of state"),
    ],
)
def test_another_optimiser_is_refused(name: str, found: str, saved: Path) -> None:
    """Its memory would not fit."""
    message = refusal(saved, Run.new(OPTIMISERS[name]))
    assert message == (
        f"the checkpoint is of the optimiser ['SGD with momentum over 10 parameters'], not of ['{found}']."
    )


def test_an_optimiser_over_fewer_parameters_is_refused(saved: Path) -> None:
    """A checkpoint of all parameters does not continue the training of some."""
    model = network()
    message = refusal(saved, Run(model, torch.optim.SGD(model[0].parameters(), 0.05, momentum=0.9)))
    assert "not of ['SGD with momentum over 2 parameters']" in message


def test_a_missing_generator_is_named(saved: Path) -> None:
    """A generator that the file does not know cannot go on."""
    run = Run.new()
    run.generators["dropout"] = generator()
    assert refusal(saved, run) == "the checkpoint lacks tensor generator.dropout."


def test_a_generator_too_much_is_named(saved: Path) -> None:
    """A generator that nobody restores would be forgotten silently."""
    run = Run.new()
    del run.generators["order"]
    assert refusal(saved, run) == "the checkpoint has an unknown tensor generator.order."


def test_many_missing_tensors_are_counted(saved: Path) -> None:
    """The first is named, the others are counted."""
    run = Run.new()
    run.model.append(nn.BatchNorm1d(3))
    assert refusal(saved, run) == "the checkpoint lacks tensor model.8.bias and 4 more."


def test_state_that_is_no_tensor_is_refused(path: Path) -> None:
    """What cannot be written is named instead of being forgotten."""
    run = Run.new()
    run.optimiser.state[run.model.get_parameter("0.weight")]["note"] = 3.0
    with pytest.raises(CheckpointError, match=r"optimiser\.0\.note is no tensor but float"):
        run.save(path)
