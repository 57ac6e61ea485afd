"""The site as it is built: complete, without warnings, and without broken links."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sphinx")
import nas_agents
import nas_gym
import nas_gym.wrappers
from nas_docs import agents, api
from nas_docs.links import Document
from nas_docs.repository import DOCUMENTS, ROOT, repository_page
from nas_docs.tutorials import sources
from nas_gym.datasets import DATASETS
from nas_gym.registry import Registry
from nas_gym.tables.format import TABLES, read_table

SECTIONS = ["Quick start", "At a glance", "Metrics", "Description", "Action Space", "Version History"]
REGISTRIES = {
    "search-spaces": nas_gym.SEARCH_SPACES,
    "evaluators": nas_gym.EVALUATORS,
    "objectives": nas_gym.OBJECTIVES,
    "datasets": DATASETS,
}
PACKAGED = {name: path for name, path in TABLES.items() if path.parent == TABLES.packaged}

every_id = pytest.mark.parametrize("name", list(nas_gym.ENVIRONMENTS))
every_agent = pytest.mark.parametrize("name", list(nas_agents.AGENTS))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, which fails on warnings and broken links."""
    out = tmp_path_factory.mktemp("docs") / "site"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".docs")}
    command = [sys.executable, "-m", "nas_docs", "--out", str(out)]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=out.parent)
    assert built.returncode == 0, built.stderr
    return out


def text(page: Path) -> str:
    """Return what a reader of a page sees, in one line."""
    body = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    plain = re.sub(r"<[^>]+>", "", body)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        plain = plain.replace(entity, character)
    return " ".join(plain.split())


def headings(page: Path, level: int = 2) -> list[str]:
    """Return the headings of a level."""
    body = page.read_text(encoding="utf-8")
    found = re.findall(rf"<h{level}>(.*?)<a class=\"headerlink\"", body, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", heading) for heading in found]


def pictures(page: Path) -> list[str]:
    """Return the pictures of the text."""
    return [target for target in Document.read(page).targets if "_images/" in target]


@every_id
def test_an_environment_has_its_sections(site: Path, name: str) -> None:
    """Those of the page, then those of the docstring."""
    found = headings(site / "environments" / f"{name}.html")
    assert [heading for heading in found if heading in SECTIONS] == SECTIONS


@every_id
def test_an_environment_is_shown_growing_and_finished(site: Path, name: str) -> None:
    """Two pictures."""
    assert len(pictures(site / "environments" / f"{name}.html")) == 2


@every_id
def test_an_environment_is_described_by_its_objects(site: Path, name: str) -> None:
    """Size of the space, action space and both forms of the id."""
    page = text(site / "environments" / f"{name}.html")
    env = nas_gym_env(name)
    facts = [f"{env.space.size():,}", str(env.action_space), f"nas_gym:{name}", f"{env.space.max_length} decisions"]
    assert [fact for fact in facts if fact not in page] == []


def nas_gym_env(name: str) -> object:
    """Return an environment that needs no data."""
    import gymnasium

    return gymnasium.make(name, evaluator="synthetic").unwrapped


def test_reference_values_come_from_the_table(site: Path) -> None:
    """Best, mean and worst validation accuracy, as the evaluator has them."""
    import gymnasium

    reference = gymnasium.make("NAS-Cell-v0").unwrapped.evaluator.reference("valid_accuracy")
    row = " ".join(f"{value:.4f}".rstrip("0") for value in (reference.best, reference.mean, reference.worst))
    assert f"valid_accuracy maximize fraction yes {row}" in text(site / "environments" / "NAS-Cell-v0.html")


@every_agent
def test_an_agent_has_its_page(site: Path, name: str) -> None:
    """With its search, its settings and its presets."""
    page = site / "agents" / f"{agents.page_name(name)}.html"
    agent = nas_agents.AGENTS[name]
    assert len(pictures(page)) == 2
    assert [one for one in (*vars(agent.Config()), *agent.presets) if one not in text(page)] == []


@pytest.mark.parametrize(("page", "registry"), list(REGISTRIES.items()), ids=list(REGISTRIES))
def test_every_entry_of_a_registry_has_a_section(site: Path, page: str, registry: Registry) -> None:
    """In the order of the registry."""
    assert headings(site / f"{page}.html") == list(registry)


def test_every_wrapper_has_a_section(site: Path) -> None:
    """A vector form stands in the section of the single form."""
    page = site / "wrappers.html"
    names = nas_gym.wrappers.__all__
    assert {name for name in names if name.removeprefix("Vector") not in headings(page, 3)} == set()
    assert [name for name in names if name not in text(page)] == []


@pytest.mark.parametrize("name", list(PACKAGED))
def test_a_table_is_described_by_its_file(site: Path, name: str) -> None:
    """Number of architectures, hash and every metric."""
    table = read_table(PACKAGED[name])
    section = text(site / "tables.html").rpartition(f"{name}#")[2]
    facts = [f"{len(table):,} architectures", table.sha256[:16], *table.measurements]
    assert [fact for fact in facts if fact not in section] == []


def test_every_command_has_a_section(site: Path) -> None:
    """Groups at the second level, their commands at the third."""
    from nas_gym.cli import app

    groups = [f"nas-gym {group.name}" for group in app.registered_groups]
    commands = [f"nas-gym {command.name}" for command in app.registered_commands]
    assert set(headings(site / "command-line.html")) == {*groups, *commands}


def test_no_summary_of_a_command_is_cut_off(site: Path) -> None:
    """Typer's own list is."""
    assert re.findall(r"\w+\.\.\.(?! |\])", text(site / "command-line.html").replace("[ARGS]...", "")) == []


def test_every_public_module_has_a_page(site: Path) -> None:
    """Of all three packages."""
    names = [name for package in api.PACKAGES for name in api.module_names(package)]
    assert [name for name in names if not (site / "api" / f"{name}.html").is_file()] == []


def test_classes_of_a_module_can_be_linked(site: Path) -> None:
    """By their full names, methods included."""
    anchors = Document.read(site / "api" / "nas_gym.search_spaces.core.html").anchors
    name = "nas_gym.search_spaces.core.SearchSpace"
    assert {name, f"{name}.decision", f"{name}.settings"} <= anchors


def test_the_home_page_is_the_readme(site: Path) -> None:
    """Its headings, in order."""
    readme = re.sub(r"^```.*?^```$", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    expected = [heading.replace("`", "") for heading in re.findall(r"^## (.+)$", readme, re.MULTILINE)]
    assert headings(site / "index.html") == expected


@pytest.mark.parametrize("path", list(DOCUMENTS))
def test_documents_of_the_repository_have_no_dead_links(path: str) -> None:
    """Every file that they link to exists; reading it would raise."""
    assert repository_page(path).text


def test_every_tutorial_is_on_the_site(site: Path) -> None:
    """Under its file name."""
    assert [path for path in sources() if not (site / "tutorials" / f"{path.stem}.html").is_file()] == []


def test_a_warning_fails_the_build(tmp_path: Path) -> None:
    """Configuration and arguments of `build` make Sphinx refuse a link that leads nowhere."""
    from nas_docs.site import CONFIGURATION, SPHINX

    (tmp_path / "index.md").write_text("# Title\n\n[nowhere](missing.md)\n")
    command = [sys.executable, "-m", "sphinx", *SPHINX, "-c", str(CONFIGURATION), str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing.md" in done.stderr
