"""`import nas_gym` is silent and cheap, and what it makes loads no more than it needs; each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONAL = ("torch", "torchvision", "sklearn", "matplotlib", "pygame", "pandas", "scipy")
HEAVY = (*OPTIONAL, "pyarrow", "nas_agents", "pytest")

PROBE = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
{code}
print("\\n" + json.dumps({{"modules": sorted(sys.modules), "opened": opened}}), file=sys.stderr)
"""

EPISODE = """
import gymnasium, nas_gym
env = gymnasium.make("NAS-Cell-v0", evaluator="synthetic")
env.reset(seed=0)
for action in range(5):
    env.step(action)
env.step(0)
"""

VECTOR_EPISODE = """
import gymnasium, nas_gym
envs = gymnasium.make_vec("NAS-Cell-v0", 2, evaluator="synthetic")
envs.reset(seed=0)
for action in range(5):
    envs.step([action, action])
"""


def run(code: str) -> tuple[set[str], list[str], str]:
    """Run code in a fresh interpreter; return the loaded modules, the opened files and everything it printed."""
    command = [sys.executable, "-W", "error", "-c", PROBE.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    *printed, report = done.stderr.strip("\n").split("\n")
    found = json.loads(report)
    return set(found["modules"]), found["opened"], done.stdout + "".join(printed)


@pytest.mark.parametrize("module", HEAVY)
def test_the_import_loads_nothing_heavy(module: str) -> None:
    """Optional and slow packages are imported where they are used."""
    assert module not in run("import nas_gym")[0]


def test_the_import_is_silent() -> None:
    """Nothing is printed to either stream, and no warning is raised."""
    assert run("import nas_gym")[2] == ""


def test_the_import_reads_no_table() -> None:
    """No Parquet file is opened."""
    assert [path for path in run("import nas_gym")[1] if path.endswith(".parquet")] == []


@pytest.mark.parametrize("code", [EPISODE, VECTOR_EPISODE], ids=["single", "vector"])
def test_an_episode_without_data_loads_nothing_heavy(code: str) -> None:
    """The synthetic evaluator needs the base install only."""
    assert run(code)[0].isdisjoint(HEAVY)


def test_a_table_loads_nothing_optional(small_table: Path) -> None:
    """Looking an architecture up needs the base install only."""
    code = f'import gymnasium, nas_gym\ngymnasium.make("NAS-Cell-v0", table={str(small_table)!r}).reset()'
    assert run(code)[0].isdisjoint(OPTIONAL)


def test_the_contract_kit_needs_neither_pytest_nor_torch() -> None:
    """Third parties can check their objects with the base install."""
    code = (
        "import nas_gym.testing as kit\n"
        "from nas_gym.search_spaces.nas_bench_201 import NASBench201Space\n"
        "kit.check_search_space(NASBench201Space(), samples=2)"
    )
    assert run(code)[0].isdisjoint(HEAVY)


def test_making_a_training_environment_loads_no_data() -> None:
    """Constructing an environment reads no data set and trains nothing."""
    pytest.importorskip("torch")
    code = 'import gymnasium, nas_gym\nenv = gymnasium.make("NAS-Cell-v0", evaluator="training")'
    assert "sklearn.datasets" not in run(code)[0]
