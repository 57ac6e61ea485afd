"""The tutorials: every block of code runs as it stands, in order, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from nas_docs.tutorials import Block, blocks, sources

TUTORIALS = sources()
LANGUAGES = {"python", "console", "text"}

every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=[path.stem for path in TUTORIALS])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder whose modules can be imported; forget them afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Commands are those of this environment, and see nothing of the machine's data.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def perform(block: Block, namespace: dict[str, Any], path: Path) -> str:
    """Run a block, or write the file that it is, and return what it printed."""
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
        return ""
    if block.language == "console":
        return "".join(run(command) for command in block.commands)
    printed = io.StringIO()
    # Blank lines in front keep the line numbers of the tutorial in tracebacks.
    program = compile("\n" * block.line + block.text, str(path), "exec")
    with contextlib.redirect_stdout(printed):
        exec(program, namespace)
    return printed.getvalue()


def run(command: str) -> str:
    """Run a shell command that must succeed."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@every_tutorial
def test_every_block_runs_and_prints_what_the_page_says(path: Path, folder: Path) -> None:
    """In order, in one namespace; a block of text is the whole output of the block before it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed, said = [], []
    output = ""
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "text":
            printed.append(output)
            said.append(block.text)
        else:
            output = perform(block, namespace, path)
    assert printed == said


@every_tutorial
def test_no_block_is_left_out(path: Path) -> None:
    """Every fence of the file is a block of a language that is run or compared."""
    text = path.read_text(encoding="utf-8")
    found = blocks(text)
    assert 2 * len(found) == sum(line.startswith("```") for line in text.splitlines())
    assert {block.language for block in found} <= LANGUAGES


@every_tutorial
def test_python_is_formatted_as_the_project_is(path: Path) -> None:
    """Lines fit the page."""
    code = "\n".join(block.text for block in blocks(path.read_text(encoding="utf-8")) if block.language == "python")
    assert [line for line in code.splitlines() if len(line) > 120] == []
