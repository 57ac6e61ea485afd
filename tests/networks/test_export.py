"""Exports: files that load without nas-gym and compute what the network computes."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from nas_gym.errors import InvalidArgument, MissingExtra, RunExists
from nas_gym.networks import build
from nas_gym.networks.export import Deployed, ExportError, FailedFormat, ModelCard, export_model, export_onnx
from nas_gym.networks.nas_bench_201 import Skeleton
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

FILES = ["README.md", "classes.json", "model.onnx", "program.pt2", "weights.safetensors"]
SPACE = NASBench201Space()
RICH = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"

CARD = ModelCard(
    name="Digits",
    architecture=RICH,
    space="nas_bench_201",
    dataset="digits",
    fingerprint="0123456789abcdef",
    class_names=("null", "eins", "fünf"),
    input_shape=(1, 8, 8),
    mean=(4.5,),
    deviation=(6.0,),
    metrics={"test accuracy": "0.97 ± 0.01 (3 seeds)"},
    recipe={"epochs": 12, "learning_rate": 0.1, "skeleton": {"channels": 8}},
    parameters=12345,
    multiply_adds=6789012,
    versions={"torch": "2.14.1"},
    notes=("Trained on training and validation images.",),
)


def small_network(channels: int = 1, classes: int = 3) -> nn.Sequential:
    """Return a network that takes no time."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    )


def trained(model: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
    """Return the network in training mode, with statistics and scales as after a training."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.uniform_(-0.5, 0.5, generator=generator)
                part.momentum = 0.5
        for _ in range(3):
            model(torch.randn((16, *input_shape), generator=generator))
    return model


class Branching(nn.Module):
    """A network whose way depends on the values of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        features = images.flatten(1)
        return self.classifier(features) if features.sum() > 0 else self.classifier(-features)


class Cholesky(nn.Module):
    """A network with an operation that ONNX does not have."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return torch.linalg.cholesky(images[:, 0] @ images[:, 0].mT + 100 * torch.eye(8))[:, 0, :3]


@dataclass(frozen=True)
class Exported:
    """An export and the network it was made from.

    Attributes:
        name: in `MODELS`.
        model: the network.
        card: its card.
        directory: the files.
        failed: what could not be made.
    """

    name: str
    model: nn.Module
    card: ModelCard
    directory: Path
    failed: list[FailedFormat]

    def pixels(self, count: int) -> npt.NDArray[np.float32]:
        """Return random images."""
        rng = np.random.default_rng(count)
        return rng.integers(0, 256, (count, *self.card.input_shape)).astype(np.float32)

    def logits(self, count: int, model: nn.Module | None = None) -> npt.NDArray[np.float32]:
        """Return what the network, or another one, says about them after the standardisation."""
        model = (model or self.model).eval()
        mean, deviation = (np.reshape(v, (-1, 1, 1)) for v in (self.card.mean, self.card.deviation))
        images = ((self.pixels(count) - mean) / deviation).astype(np.float32)
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    def snippets(self) -> dict[str, str]:
        """Return the code of the card by the file it loads."""
        text = (self.directory / "README.md").read_text(encoding="utf-8")
        return dict(re.findall(r"### .*?`(.*?)`\n\n```python\n(.*?)```", text, re.DOTALL))


MODELS: dict[str, Callable[[], tuple[nn.Module, ModelCard]]] = {
    "official size": lambda: (
        build(SPACE, SPACE.from_string(RICH), (3, 32, 32), 10),
        replace(
            CARD,
            input_shape=(3, 32, 32),
            class_names=tuple(f"class {i}" for i in range(10)),
            mean=(125.3, 123.0, 113.9),
            deviation=(63.0, 62.1, 66.7),
        ),
    ),
    "small size": lambda: (
        build(SPACE, SPACE.from_string(RICH), (1, 8, 8), 3, skeleton=Skeleton(8, 1, 3, "pooling")),
        CARD,
    ),
    "no operations": lambda: (
        build(SPACE, SPACE.from_string(EMPTY), (1, 8, 8), 3, skeleton=Skeleton(8, 1, 3, "pooling")),
        CARD,
    ),
    "channels last": lambda: (small_network().to(memory_format=torch.channels_last), CARD),
    "five channels": lambda: (
        small_network(5),
        replace(CARD, input_shape=(5, 8, 8), mean=(1.0, 2.0, 3.0, 4.0, 5.0), deviation=(1.0, 2.0, 3.0, 4.0, 5.0)),
    ),
}
"""Networks of all sorts."""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Return the export of a network by its name; each is made once."""
    made: dict[str, Exported] = {}

    def export(name: str) -> Exported:
        if name not in made:
            model, card = MODELS[name]()
            trained(model, card.input_shape)
            directory = tmp_path_factory.mktemp("exports") / "model"
            made[name] = Exported(name, model, card, directory, export_model(model, directory, card))
        return made[name]

    return export


@pytest.fixture(params=MODELS)
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Exported]) -> Exported:
    """Return every export."""
    return exports(request.param)


def run_without_nas_gym(code: str, directory: Path) -> str:
    """Return what a new interpreter prints that cannot import nas-gym."""
    blocked = f"import sys\nsys.modules['nas_gym'] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what the files compute ------------------------------------------------------------------------


def test_everything_is_written(exported: Exported) -> None:
    """Five files, and torch could make all of them."""
    assert sorted(path.name for path in exported.directory.iterdir()) == FILES
    assert exported.failed == []


@pytest.fixture(scope="module")
def answers_of_programs(
    exports: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the logits of all programs for one and for five images, from a new process that has torch alone."""
    directory = tmp_path_factory.mktemp("answers")
    pixels = {f"{name} {count}": exports(name).pixels(count) for name in MODELS for count in (1, 5)}
    np.savez(directory / "pixels.npz", **pixels)  # pyright: ignore[reportArgumentType]
    files = {key: str(exports(key.rsplit(" ", 1)[0]).directory / "program.pt2") for key in pixels}
    code = f"""
import numpy, torch
pixels, logits = numpy.load("pixels.npz"), {{}}
for key, file in {files!r}.items():
    with torch.no_grad():
        logits[key] = torch.export.load(file).module()(torch.from_numpy(pixels[key])).numpy()
numpy.savez("logits.npz", **logits)
"""
    run_without_nas_gym(code, directory)
    return dict(np.load(directory / "logits.npz"))


@pytest.mark.parametrize("count", [1, 5])
def test_the_program_computes_the_same_without_nas_gym(
    count: int, exported: Exported, answers_of_programs: dict[str, npt.NDArray[np.float32]]
) -> None:
    """Torch agrees for one image and for five."""
    logits = answers_of_programs[f"{exported.name} {count}"]
    np.testing.assert_allclose(logits, exported.logits(count), atol=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_computes_the_same(count: int, exported: Exported) -> None:
    """ONNX Runtime agrees for one image and for five."""
    session = onnxruntime.InferenceSession(exported.directory / "model.onnx", providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(["logits"], {"pixels": exported.pixels(count)})[0])
    np.testing.assert_allclose(logits, exported.logits(count), atol=1e-4)


def test_the_weights_load_strictly(exported: Exported) -> None:
    """A new network of the same architecture takes them and computes the same."""
    model, _ = MODELS[exported.name]()
    model.load_state_dict(load_file(exported.directory / "weights.safetensors"), strict=True)
    np.testing.assert_array_equal(exported.logits(5, model), exported.logits(5))


def test_the_classes_are_listed_in_order(exported: Exported) -> None:
    """As the logits are."""
    classes = json.loads((exported.directory / "classes.json").read_text(encoding="utf-8"))
    assert tuple(classes) == exported.card.class_names


def test_onnx_is_valid_and_names_its_ends(exports: Callable[[str], Exported]) -> None:
    """The checker finds no fault; the number of images is open."""
    model = onnx.load(exports("small size").directory / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    ends = [*model.graph.input, *model.graph.output]
    shapes = {end.name: [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim] for end in ends}
    assert shapes == {"pixels": ["batch", 1, 8, 8], "logits": ["batch", 3]}


def test_the_files_do_not_name_files_of_this_machine(exported: Exported) -> None:
    """Neither directories of the project nor of Python."""
    root = str(Path(__file__).resolve().parents[2]).encode()
    found = [
        path.name
        for path in exported.directory.iterdir()
        if root in path.read_bytes() or b"site-packages" in path.read_bytes()
    ]
    assert found == []


# --- what the card says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        pytest.param("small size", "program.pt2", r"tensor\(\[\[.*, .*, .*\]\]\)", id="torch"),
        pytest.param("small size", "model.onnx", "null|eins|fünf", id="onnx, grey image"),
        pytest.param("official size", "model.onnx", "class [0-9]", id="onnx, coloured image"),
        pytest.param("five channels", "model.onnx", "null|eins|fünf", id="onnx, array"),
        pytest.param("small size", "weights.safetensors", r"0\.0\.weight \(8, 1, 3, 3\)\n.*", id="weights"),
    ],
)
def test_the_code_of_the_card_runs(
    name: str, file: str, expected: str, exports: Callable[[str], Exported], tmp_path: Path
) -> None:
    """Copied out of the README and run beside the files and an image, without nas-gym."""
    exported = exports(name)
    for path in exported.directory.iterdir():
        (tmp_path / path.name).symlink_to(path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    printed = run_without_nas_gym(exported.snippets()[file], tmp_path).strip()
    assert re.fullmatch(expected, printed, re.DOTALL)


@pytest.mark.parametrize(
    "line",
    [
        "# Digits",
        f"- architecture: `{RICH}` of the search space `nas_bench_201`",
        "- data set: `digits`, fingerprint `0123456789abcdef`",
        "- parameters: 12,345",
        "- multiply-adds per image: 6,789,012",
        "- test accuracy: 0.97 ± 0.01 (3 seeds)",
        "- Trained on training and validation images.",
        "- epochs: `12`",
        '- skeleton: `{"channels": 8}`',
        "- torch: 2.14.1",
    ],
)
def test_the_card_tells_what_a_receiver_must_know(line: str) -> None:
    """One fact per line."""
    assert line in CARD.markdown().splitlines()


def test_the_card_tells_how_bare_weights_want_their_images() -> None:
    """The standardisation is not among the weights."""
    assert "subtract the mean [4.5] from every channel and divide by the deviation [6.0]" in CARD.markdown()


def test_a_card_needs_no_notes() -> None:
    """No empty list is left."""
    assert "\n\n\n" not in replace(CARD, notes=()).markdown()


def test_a_failed_format_has_its_reason_instead_of_code() -> None:
    """The other formats keep theirs."""
    text = CARD.markdown([FailedFormat("model.onnx", "no such operation")])
    assert "### ONNX Runtime: `model.onnx`\n\nNot available: no such operation\n" in text
    assert "onnxruntime" not in text
    assert "torch.export.load" in text


# --- networks that cannot be exported --------------------------------------------------------------


def test_a_network_with_branches_has_its_weights_at_least(tmp_path: Path) -> None:
    """What torch cannot trace is returned with the reason; weights, classes and card are complete."""
    model = Branching()
    failed = export_model(model, tmp_path / "model", CARD)
    assert [one.file for one in failed] == ["program.pt2", "model.onnx"]
    assert all("data-dependent" in one.reason for one in failed)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "classes.json",
        "weights.safetensors",
    ]
    model.load_state_dict(load_file(tmp_path / "model" / "weights.safetensors"))


def test_the_reason_is_one_line_of_the_card(tmp_path: Path) -> None:
    """Pages of advice by torch are left out."""
    failed = export_model(Branching(), tmp_path, CARD)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"### PyTorch: `program.pt2`\n\nNot available: {failed[0].reason}\n\n### " in text


def test_an_operation_without_onnx_costs_that_format_alone(tmp_path: Path) -> None:
    """The program of torch is written."""
    failed = export_model(Cholesky(), tmp_path, CARD)
    assert [one.file for one in failed] == ["model.onnx"]
    assert "cholesky" in failed[0].reason
    assert (tmp_path / "program.pt2").exists()


def test_a_network_that_cannot_be_exported_to_onnx_is_an_error(tmp_path: Path) -> None:
    """If ONNX is all that was asked for, and no file is left."""
    with pytest.raises(ExportError, match="the network cannot be exported to ONNX: "):
        export_onnx(Branching(), (1, 8, 8), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


# --- onnx alone ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "expected"), [(None, "batch"), (1, 1), (4, 4)])
def test_the_batch_is_open_or_fixed(batch: int | None, expected: str | int, tmp_path: Path) -> None:
    """Devices want a number, servers want none."""
    export_onnx(small_network(), (1, 8, 8), tmp_path / "model.onnx", batch)
    dimension = onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert (dimension.dim_param or dimension.dim_value) == expected


def test_onnx_is_one_file_in_the_place_of_the_older(tmp_path: Path) -> None:
    """Nothing lies beside it."""
    path = tmp_path / "model.onnx"
    path.write_text("older")
    export_onnx(small_network(), (1, 8, 8), path)
    onnx.checker.check_model(path)
    assert list(tmp_path.iterdir()) == [path]


def test_modes_are_put_back(tmp_path: Path) -> None:
    """A network in training goes on training, and its frozen normalisation stays frozen."""
    model = small_network().train()
    model[1].eval()
    export_onnx(model, (1, 8, 8), tmp_path / "model.onnx")
    assert [part.training for part in model] == [index != 1 for index in range(len(model))]


def test_modes_are_put_back_after_a_failure(tmp_path: Path) -> None:
    """Whatever went wrong."""
    model = Branching().train()
    with pytest.raises(ExportError):
        export_onnx(model, (1, 8, 8), tmp_path / "model.onnx")
    assert model.training
    assert model.classifier.training


def test_exporting_is_silent(tmp_path: Path) -> None:
    """A process that exports a network and one that cannot be exported prints nothing and warns of nothing."""
    code = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
sys.path.insert(0, sys.argv[1])
import torch
from torch import nn
from nas_gym.networks.export import ExportError, export_onnx

class Branching(nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else -images

export_onnx(nn.Conv2d(1, 2, 3), (1, 8, 8), Path("model.onnx"))
try:
    export_onnx(Branching(), (1, 8, 8), Path("other.onnx"))
except ExportError:
    pass
logging.warning("afterwards")
"""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, root], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == "WARNING:root:afterwards\n"


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written, with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"no module named '{package}'.*nas-gym\[train\]"):
        export_model(small_network(), tmp_path / "model", CARD)
    assert list(tmp_path.iterdir()) == []


# --- files and disks -------------------------------------------------------------------------------


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the seconds of the exporters where the programs do not matter."""
    monkeypatch.setattr("nas_gym.networks.export._programs", lambda *arguments: ({"model.onnx": b"onnx"}, []))


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let the system refuse to write more bytes than `size` into a file.

    Not longer than the call that is to fail: the test runner itself may be writing its report into a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_export_is_never_overwritten(tmp_path: Path, no_programs: None) -> None:
    """The second one into the same directory is refused, and the first is as it was."""
    export_model(small_network(), tmp_path / "model", CARD)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(RunExists, match="model exists already and is not empty"):
        export_model(small_network(), tmp_path / "model", CARD)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_a_file_in_the_place_of_the_directory_is_kept(tmp_path: Path, no_programs: None) -> None:
    """It is refused like a directory with files."""
    (tmp_path / "model").write_text("something else")
    with pytest.raises(RunExists):
        export_model(small_network(), tmp_path / "model", CARD)
    assert (tmp_path / "model").read_text() == "something else"


def test_parents_are_made(tmp_path: Path, no_programs: None) -> None:
    """The directory may lie in directories that do not exist yet."""
    export_model(small_network(), tmp_path / "a" / "b", CARD)
    assert (tmp_path / "a" / "b" / "README.md").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, no_programs: None) -> None:
    """With what the system says."""
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"file/model: cannot be made: Not a directory"):
        export_model(small_network(), tmp_path / "file" / "model", CARD)


def test_a_full_disk_names_the_file(tmp_path: Path, no_programs: None) -> None:
    """With what the system says."""
    refused = pytest.raises(ExportError, match=r"weights\.safetensors: cannot be written: File too large")
    with refused, small_disk(600):
        export_model(small_network(), tmp_path / "model", CARD)


def test_a_full_disk_leaves_no_half_export(tmp_path: Path, no_programs: None) -> None:
    """The same export can be made again where there is room."""
    large = replace(CARD, notes=("x" * 100_000,))
    refused = pytest.raises(ExportError, match=r"README\.md: cannot be written: File too large")
    with refused, small_disk(50_000):
        export_model(small_network(), tmp_path / "model", large)
    assert list((tmp_path / "model").iterdir()) == []
    export_model(small_network(), tmp_path / "model", large)


def test_onnx_on_a_full_disk_names_the_file_and_keeps_the_older(tmp_path: Path) -> None:
    """A half file never takes its place."""
    path = tmp_path / "model.onnx"
    path.write_text("older")
    refused = pytest.raises(ExportError, match=r"model\.onnx: cannot be written: File too large")
    with refused, small_disk(600):
        export_onnx(small_network(), (1, 8, 8), path)
    assert [(one, one.read_text()) for one in tmp_path.iterdir()] == [(path, "older")]


def test_tied_weights_are_written_under_all_names(tmp_path: Path, no_programs: None) -> None:
    """The state dict loads strictly."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    export_model(model, tmp_path / "model", CARD)
    model.load_state_dict(load_file(tmp_path / "model" / "weights.safetensors"), strict=True)


# --- the standardisation ---------------------------------------------------------------------------


def test_a_deployed_network_takes_pixels() -> None:
    """Every channel has its own mean and deviation."""
    deployed = Deployed(nn.Identity(), (10.0, 20.0), (2.0, 4.0))
    pixels = torch.tensor([12.0, 12.0]).reshape(1, 2, 1, 1)
    assert deployed(pixels).flatten().tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        pytest.param((1.0, 2.0), (1.0,), id="numbers of channels"),
        pytest.param((1.0,), (0.0,), id="zero"),
        pytest.param((1.0,), (-1.0,), id="negative"),
        pytest.param((1.0,), (float("nan"),), id="nan"),
    ],
)
def test_an_impossible_standardisation_is_refused(mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
    """A division by zero would make every answer the same."""
    with pytest.raises(InvalidArgument, match="one number per channel, deviations above 0"):
        Deployed(nn.Identity(), mean, deviation)
