"""The wheel holds what the tree holds, under the names that users import."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"nas_gym": "nas_gym", "agents": "nas_agents", "benchmarks": "nas_benchmarks"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built from a copy of the tracked tree, so that nothing is left in the checkout."""
    pytest.importorskip("build.__main__")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        for path in sorted((ROOT / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_has_every_module_and_data_file(wheel: Path) -> None:
    """No module, table or type marker is missing, and none is there twice."""
    expected = {
        str(Path(installed) / path.relative_to(ROOT / folder))
        for folder, installed in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".parquet", ".typed", ".jsonl", ".css", ".js") and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected


def test_installed_wheel_imports_from_its_own_place(wheel: Path, tmp_path: Path) -> None:
    """All three packages import from the installed copy."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nas_gym, nas_agents, nas_benchmarks; "
        "print(*(m.__file__ for m in (nas_gym, nas_agents, nas_benchmarks)), sep='\\n')"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert all(line.startswith(str(tmp_path)) for line in result.stdout.splitlines())


def test_wheel_is_small(wheel: Path) -> None:
    """The packaged tables stay under four megabytes together."""
    assert wheel.stat().st_size < 4_000_000
