"""Real trainings on MNIST and on a subset of CIFAR-10; minutes, and only where the files are."""

from __future__ import annotations

import os
from pathlib import Path

import gymnasium
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("NAS_GYM_TEST_DATA" not in os.environ, reason="NAS_GYM_TEST_DATA names no folder of data sets"),
]

GOOD_CELL = (3, 3, 3, 1, 3, 3)


def accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **arguments: object) -> dict[str, float]:
    """Return what a good cell reaches, through the environment."""
    data = Path(os.environ["NAS_GYM_TEST_DATA"])
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
    (tmp_path / "MNIST").symlink_to(data / "MNIST")
    env = gymnasium.make("NAS-Cell-Train-v0", **arguments)  # pyright: ignore[reportArgumentType]
    env.reset(seed=0)
    for action in GOOD_CELL:
        *_, info = env.step(action)
    report = env.unwrapped.evaluator.report(info["encoding"])  # pyright: ignore[reportAttributeAccessIssue]
    env.close()
    assert info["status"] == "ok"
    return {"valid": info["metrics"]["valid_accuracy"], "test": report["test_accuracy"]}


def test_mnist_is_learnt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Above 97 % after two epochs on 10,000 images."""
    found = accuracy(monkeypatch, tmp_path, dataset="mnist", subset=10_000, epochs=2, batch_size=64)
    assert min(found.values()) > 0.97


@pytest.mark.parametrize("form", ["cifar10.npz", "cifar10"], ids=["npz", "folder"])
def test_a_subset_of_cifar10_is_learnt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str) -> None:
    """Above 35 % after five epochs on 5,000 photographs; chance is 10 %, measured were 44 to 45 %."""
    found = accuracy(
        monkeypatch,
        tmp_path,
        dataset=str(Path(os.environ["NAS_GYM_TEST_DATA"]) / form),
        subset=5_000,
        epochs=5,
        batch_size=64,
        augmentation="crop,flip",
    )
    assert min(found.values()) > 0.35
