"""Latency: measured here, by a function of the user or by a command of the user."""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - ways to measure are handed to worker processes
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from nas_gym.errors import InvalidArgument, MissingExtra, NASGymError
from nas_gym.evaluators.latency import (
    CommandLatency,
    FunctionLatency,
    Latency,
    LatencyError,
    LocalLatency,
    parse_latency,
)

SHAPE = (1, 8, 8)

FORMS: dict[str, Latency] = {
    "local": LocalLatency(2, threads=3),
    "function": FunctionLatency("module:function", 2),
    "command": CommandLatency("run {onnx}", 2, timeout=5.0),
}
"""One way of each kind."""


def network(width: int = 4, depth: int = 1) -> nn.Sequential:
    """Return a classifier of 8x8 images."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


class Recorder(nn.Module):
    """A network that remembers how it was called; every call sleeps for as long as it is told."""

    calls: list[dict[str, Any]] = []  # noqa: RUF012 - of the class, since what is measured is a copy

    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self.seconds = list(seconds)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images."""
        self.calls.append(
            {
                "shape": tuple(images.shape),
                "channels_last": images.is_contiguous(memory_format=torch.channels_last),
                "training": self.training,
                "grad": torch.is_grad_enabled(),
                "threads": torch.get_num_threads(),
            }
        )
        if self.seconds:
            time.sleep(self.seconds.pop(0))
        return images


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what recorders will remember."""
    remembered: list[dict[str, Any]] = []
    monkeypatch.setattr(Recorder, "calls", remembered)
    return remembered


# --- on this machine -------------------------------------------------------------------------------


def test_a_larger_network_takes_longer() -> None:
    """Many wide layers take more time than one narrow layer."""
    latency = LocalLatency(warm_up=3, repeats=11)
    assert latency(network(64, depth=10), SHAPE) > latency(network(4), SHAPE)


def test_a_larger_batch_takes_longer() -> None:
    """The seconds are those of the whole batch."""
    one, many = (LocalLatency(batch, warm_up=3, repeats=11)(network(32, depth=4), SHAPE) for batch in (1, 64))
    assert many > one


def test_the_median_ignores_warm_up_and_outliers(calls: list[dict[str, Any]]) -> None:
    """Of two slow runs, one before counting begins and one of three that count, nothing is left."""
    seconds = LocalLatency(warm_up=1, repeats=3)(Recorder(0.2, 0.02, 0.2, 0.02), SHAPE)
    assert 0.02 <= seconds < 0.2


def test_every_run_is_made(calls: list[dict[str, Any]]) -> None:
    """Warm-up and repeats add up."""
    LocalLatency(warm_up=4, repeats=7)(Recorder(), SHAPE)
    assert len(calls) == 11


def test_the_network_runs_as_in_use(calls: list[dict[str, Any]]) -> None:
    """Evaluation mode, no gradients, channels-last, with the batch and the threads that were asked for."""
    LocalLatency(batch=5, threads=2, warm_up=0, repeats=1)(Recorder(), (3, 8, 6))
    assert calls == [{"shape": (5, 3, 8, 6), "channels_last": True, "training": False, "grad": False, "threads": 2}]


def test_the_threads_are_put_back() -> None:
    """The measurement leaves no trace in the process, even if the network fails."""
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        LocalLatency(threads=before + 1)(network(), (2, 8, 8))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("measure", [LocalLatency(repeats=1), FunctionLatency("math:isnan")], ids=["local", "onnx"])
def test_the_network_is_not_changed(measure: Latency) -> None:
    """Training finds modes, weights, statistics and memory format as they were."""
    model = network()
    model[1].eval()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    try:
        measure(model, SHAPE)
    except LatencyError:
        pass
    assert [part.training for part in model] == [index != 1 for index in range(len(model))]
    after = {name: (tensor, tensor.stride()) for name, tensor in model.state_dict().items()}
    assert all(torch.equal(before[name][0], after[name][0]) for name in before)
    assert {name: stride for name, (_, stride) in before.items()} == {
        name: stride for name, (_, stride) in after.items()
    }


def test_the_global_generator_is_not_used() -> None:
    """A measurement draws no random number that a training would have drawn."""
    model = network()
    before = torch.get_rng_state()
    LocalLatency(repeats=1)(model, SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


# --- by a function ---------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return a way to make a module of the user with given source, and its name."""

    def make(source: str) -> str:
        name = f"users_latency_{abs(hash(source))}"
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        return name

    return make


def test_a_function_gets_the_network_and_returns_milliseconds(module: Callable[[str], str]) -> None:
    """It can load the file; 12 milliseconds are 0.012 seconds."""
    name = module("import onnx\ndef measure(path):\n    onnx.load(path)\n    return 12.0\n")
    assert FunctionLatency(f"{name}:measure")(network(), SHAPE) == pytest.approx(0.012)


def test_the_file_has_the_batch_fixed(module: Callable[[str], str]) -> None:
    """Compilers for devices need to know the number of images."""
    name = module("shapes = []\nimport onnx\ndef measure(path):\n    shapes.append(onnx.load(path))\n    return 1\n")
    FunctionLatency(f"{name}:measure", 3)(network(), SHAPE)
    graph: onnx.GraphProto = sys.modules[name].shapes[0].graph
    dimensions = graph.input[0].type.tensor_type.shape.dim
    assert [dimension.dim_value for dimension in dimensions] == [3, *SHAPE]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("raise KeyError('board')", "raised KeyError: 'board'", id="raises"),
        pytest.param("return None", "must return milliseconds, got NoneType None", id="nothing"),
        pytest.param("return float('nan')", "must give milliseconds of at least 0, got nan", id="nan"),
        pytest.param("return -1", "must give milliseconds of at least 0, got -1.0", id="negative"),
        pytest.param("return float('inf')", "must give milliseconds of at least 0, got inf", id="infinite"),
    ],
)
def test_a_function_without_a_usable_number_is_an_error(
    body: str, message: str, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the function and what came of it."""
    monkeypatch.setattr("nas_gym.evaluators.latency.export_onnx", lambda *arguments: None)
    name = module(f"def measure(path):\n    {body}\n")
    target = f"{name}:measure"
    with pytest.raises(LatencyError, match=re.escape(f"'{target}' {message}")):
        FunctionLatency(target)(network(), SHAPE)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param("no_such_module:measure", "cannot be imported: ModuleNotFoundError", id="no module"),
        pytest.param("math:measure", "has no attribute 'measure'", id="no function"),
        pytest.param("math:pi", "is no function but float", id="not callable"),
    ],
)
def test_a_missing_function_is_an_error(target: str, message: str) -> None:
    """It is found when it is needed, before the network is exported."""
    with pytest.raises(LatencyError, match=message):
        FunctionLatency(target)(network(), SHAPE)


def test_a_network_that_cannot_be_exported_has_no_latency() -> None:
    """The reason is that of the export."""

    class Branching(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(LatencyError, match="no latency: the network cannot be exported to ONNX: "):
        FunctionLatency("math:isnan")(Branching(), SHAPE)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to install them."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"pip install \"nas-gym\[train\]\""):
        FunctionLatency("math:isnan")(network(), SHAPE)


# --- by a command ----------------------------------------------------------------------------------

ONNX_RUNTIME = """
import sys, time
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
[pixels] = session.get_inputs()
images = numpy.zeros(pixels.shape, numpy.float32)
started = time.perf_counter()
session.run(None, {pixels.name: images})
print("a first line")
print(1000 * (time.perf_counter() - started) + 1000 * len(images))
print()
"""


def command(source: str, tmp_path: Path, *arguments: str) -> str:
    """Return a command that runs a script; its directory has a space in its name."""
    script = tmp_path / "the user's scripts" / "latency.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(source)
    return shlex.join([sys.executable, str(script), *(arguments or ("{onnx}",))])


@pytest.fixture
def fake_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the seconds of an export where the file does not matter."""
    monkeypatch.setattr("nas_gym.evaluators.latency.export_onnx", lambda *arguments: None)


def test_a_command_measures_the_network(tmp_path: Path) -> None:
    """A script that runs the file with ONNX Runtime and prints milliseconds; it adds one second for every image."""
    seconds = CommandLatency(command(ONNX_RUNTIME, tmp_path), batch=3)(network(), SHAPE)
    assert 3 < seconds < 60


def test_the_file_is_removed_afterwards(tmp_path: Path) -> None:
    """Thousands of candidates leave nothing behind."""
    note = tmp_path / "path.txt"
    script = "import sys\nopen(sys.argv[2], 'w').write(sys.argv[1])\nprint(1)"
    CommandLatency(command(script, tmp_path, "{onnx}", str(note)))(network(), SHAPE)
    assert not Path(note.read_text()).parent.exists()


def test_no_shell_reads_the_command(tmp_path: Path, fake_export: None) -> None:
    """Words with a meaning to shells are plain arguments."""
    line = command("import sys\nprint(len(sys.argv))", tmp_path) + " && echo $HOME > '*'"
    assert CommandLatency(line)(network(), SHAPE) == pytest.approx(0.007)


def test_the_placeholder_may_be_a_part_of_a_word(tmp_path: Path, fake_export: None) -> None:
    """As in ``--model={onnx}``."""
    line = command("import sys\nprint(sys.argv[1][:8] == '--model=' and 5)", tmp_path, "--model={onnx}")
    assert CommandLatency(line)(network(), SHAPE) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "import sys\nprint('no device', file=sys.stderr)\nsys.exit(3)",
            "failed with exit code 3; stderr:\nno device",
            id="exit code",
        ),
        pytest.param("import os\nos.abort()", "failed with exit code -6", id="signal"),
        pytest.param("pass", "must print milliseconds as its last line; it printed: nothing.", id="silent"),
        pytest.param("print('3 ms')", "must print milliseconds as its last line; it printed:\n3 ms", id="no number"),
        pytest.param(
            "print(1)\nprint('done')",
            "must print milliseconds as its last line; it printed:\n1\ndone",
            id="number elsewhere",
        ),
        pytest.param("print(-2)", "must give milliseconds of at least 0, got -2.0", id="negative"),
        pytest.param("print('nan')", "must give milliseconds of at least 0, got nan", id="nan"),
    ],
)
def test_a_command_without_a_usable_number_is_an_error(
    source: str, message: str, tmp_path: Path, fake_export: None
) -> None:
    """The message has the command and what came of it."""
    line = command(source, tmp_path)
    with pytest.raises(LatencyError, match=re.escape(f"latency command {line!r} {message}")):
        CommandLatency(line)(network(), SHAPE)


def test_of_long_complaints_the_last_lines_are_shown(tmp_path: Path, fake_export: None) -> None:
    """The end of a traceback says what happened."""
    line = command("import sys\nfor i in range(100):\n    print(i, file=sys.stderr)\nsys.exit(1)", tmp_path)
    with pytest.raises(LatencyError, match=r"stderr:\n95\n96\n97\n98\n99$"):
        CommandLatency(line)(network(), SHAPE)


def test_a_command_that_does_not_exist_is_an_error(fake_export: None) -> None:
    """The message says that it cannot be started."""
    with pytest.raises(LatencyError, match="cannot be started: No such file or directory"):
        CommandLatency("/no/such/program {onnx}")(network(), SHAPE)


def test_a_command_is_ended_after_its_time(tmp_path: Path, fake_export: None) -> None:
    """What it started itself is ended too, although it holds the pipe open."""
    alive = tmp_path / "alive.txt"
    child = f"import time\ntime.sleep(1.5)\nopen({str(alive)!r}, 'w')"
    line = command(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])", tmp_path)
    with pytest.raises(LatencyError, match=r"was ended after 0\.5 seconds"):
        CommandLatency(line, timeout=0.5)(network(), SHAPE)
    time.sleep(1.5)
    assert not alive.exists()


# --- what users write ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", LocalLatency(4)),
        ("local:threads=2", LocalLatency(4, threads=2)),
        ("local:threads=2,warm_up=0,repeats=7", LocalLatency(4, threads=2, warm_up=0, repeats=7)),
        ("module:function", FunctionLatency("module:function", 4)),
        ("package.module:Class.method", FunctionLatency("package.module:Class.method", 4)),
        ("python a:b.py --model={onnx}", CommandLatency("python a:b.py --model={onnx}", 4)),
    ],
)
def test_a_text_says_how_to_measure(text: str, expected: Latency) -> None:
    """The batch is that of the caller."""
    assert parse_latency(text, 4) == expected


def test_the_batch_is_one_by_default() -> None:
    """As on a device that looks at one image at a time."""
    assert parse_latency("local").batch == 1


def test_reading_a_text_imports_nothing() -> None:
    """Whether the module exists turns out when it is needed."""
    assert parse_latency("no_such_module:function") == FunctionLatency("no_such_module:function")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "locale",
        "local:",
        "local:function",
        "local:cores=2",
        "local:batch=2",
        "local:threads=two",
        "local:threads=-1",
        "local:threads=1,threads=2",
        "module:",
        ":function",
        "python measure.py",
        "a:b:c",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    """The message has the text and all forms."""
    with pytest.raises(InvalidArgument) as raised:
        parse_latency(text)
    assert [form in str(raised.value) for form in (repr(text), "'local'", "'module:function'", "{onnx}")] == [True] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: LocalLatency(batch=0), "batch of a latency must be at least 1, got 0", id="batch"),
        pytest.param(lambda: LocalLatency(threads=0), "threads of a latency must be at least 1", id="threads"),
        pytest.param(lambda: LocalLatency(warm_up=-1), "warm_up of a latency must be at least 0", id="warm-up"),
        pytest.param(lambda: LocalLatency(repeats=0), "repeats of a latency must be at least 1", id="repeats"),
        pytest.param(lambda: parse_latency("local:threads=0"), "threads of a latency must be at least 1", id="text"),
        pytest.param(lambda: FunctionLatency("module"), "not of the form 'module:function'", id="no function"),
        pytest.param(lambda: FunctionLatency("a:b", batch=0), "batch of a latency", id="batch of a function"),
        pytest.param(lambda: CommandLatency("run"), "'run' lacks {onnx}", id="no placeholder"),
        pytest.param(lambda: CommandLatency("run '{onnx}"), "cannot be split into words", id="open quote"),
        pytest.param(lambda: CommandLatency("run {onnx}", batch=0), "batch of a latency", id="batch of a command"),
        pytest.param(lambda: CommandLatency("run {onnx}", timeout=0), "timeout must be a positive", id="no time"),
        pytest.param(lambda: CommandLatency("run {onnx}", timeout=math.nan), "timeout must be a positive", id="nan"),
    ],
)
def test_impossible_values_are_refused(make: Callable[[], object], message: str) -> None:
    """The message names the value."""
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        make()


# --- as values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [pytest.param(one, id=name) for name, one in FORMS.items()])
def test_a_way_to_measure_crosses_process_boundaries(latency: Latency) -> None:
    """Workers receive the same one."""
    assert pickle.loads(pickle.dumps(latency)) == latency


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(LocalLatency(), LocalLatency(batch=2), id="batch"),
        pytest.param(LocalLatency(), LocalLatency(threads=2), id="threads"),
        pytest.param(LocalLatency(), LocalLatency(repeats=2), id="repeats"),
        pytest.param(FunctionLatency("a:b"), FunctionLatency("a:b", 2), id="batch of a function"),
        pytest.param(FunctionLatency("a:b"), FunctionLatency("a:c"), id="function"),
        pytest.param(CommandLatency("a {onnx}"), CommandLatency("a {onnx}", 2), id="batch of a command"),
        pytest.param(CommandLatency("a {onnx}"), CommandLatency("b {onnx}"), id="command"),
    ],
)
def test_fingerprints_tell_ways_apart(one: Latency, other: Latency) -> None:
    """A stored number is not taken for that of another measurement."""
    assert one.fingerprint != other.fingerprint


def test_the_patience_is_not_part_of_the_fingerprint() -> None:
    """How long a command may take does not change its number."""
    assert CommandLatency("a {onnx}").fingerprint == CommandLatency("a {onnx}", timeout=1.0).fingerprint


@pytest.mark.parametrize(
    ("latency", "text"),
    [
        pytest.param(LocalLatency(), "median of 50 after 10, batch 1, 1 thread, cpu", id="local"),
        pytest.param(LocalLatency(8, threads=2), "median of 50 after 10, batch 8, 2 threads, cpu", id="threads"),
        pytest.param(FunctionLatency("a:b"), "a:b, batch 1", id="function"),
        pytest.param(CommandLatency("run {onnx}"), "run {onnx}, batch 1", id="command"),
    ],
)
def test_reports_say_how_it_was_measured(latency: Latency, text: str) -> None:
    """In one line."""
    assert latency.describe() == text


def test_the_error_is_one_of_the_project() -> None:
    """Catching the base class catches it."""
    assert issubclass(LatencyError, NASGymError)
