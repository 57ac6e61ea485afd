"""The parts of a paper: LaTeX, PDF and BibTeX."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the extra `report`")

from hypothesis import given
from hypothesis import strategies as st
from report_kit import METHODS, write_run, write_suite

from nas_benchmarks.records import WriteFailed
from nas_benchmarks.report import read, write_paper
from nas_benchmarks.report.paper import latex
from nas_gym.errors import InvalidArgument


@pytest.fixture(scope="module")
def paper(small_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the parts of a paper about a suite."""
    folder = tmp_path_factory.mktemp("paper")
    write_paper(read(write_suite(folder / "suite", small_table)), folder / "paper")
    return folder / "paper"


def test_there_is_a_part_for_everything(paper: Path) -> None:
    """Tables, figures, the protocol, references, and a document that shows all of them."""
    assert sorted(path.name for path in paper.iterdir()) == [
        "costs-shorter-training.pdf", "costs-small.pdf", "example.tex", "profile-shorter-training.pdf",
        "profile-small.pdf", "profile.pdf", "protocol.tex", "references.bib", "regret-shorter-training.pdf",
        "regret-small.pdf", "table-against-local-search.tex",
        "table-against-random-search.tex", "table-all-tasks.tex", "table-regret-per-task.tex",
    ]  # fmt: skip


def test_the_figures_are_vectors(paper: Path) -> None:
    """No picture inside, and fonts as outlines that journals accept (no type 3)."""
    for path in paper.glob("*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF-")
        assert b"/Subtype /Image" not in content
        assert b"/Subtype /Type3" not in content


def test_equal_records_make_equal_files(paper: Path, tmp_path: Path) -> None:
    """Bit by bit, so that a paper's repository shows what changed."""
    again = write_paper(read(paper.parent / "suite"), tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in sorted(paper.iterdir())]


def test_every_line_of_a_table_has_as_many_cells(paper: Path) -> None:
    """As its heading and its columns."""
    for path in paper.glob("table-*.tex"):
        text = path.read_text()
        columns = len(re.findall(r"\\begin{tabular}{(l?r*)}", text)[0])
        lines = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
        assert len(lines) > 1


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_in_the_summary(paper: Path, method: str) -> None:
    """Typed as it is, with its underscore escaped; a line may end behind that."""
    text = (paper / "table-all-tasks.tex").read_text().replace(r"\allowbreak{}", "")
    assert rf"\texttt{{{latex(method)}}} & " in text


def test_everything_that_is_cited_is_in_the_references(paper: Path) -> None:
    """And the other way round."""
    cited = re.findall(r"\\cite{([^}]*)}", (paper / "protocol.tex").read_text())
    entries = re.findall(r"^@\w+{([^,]+),", (paper / "references.bib").read_text(), re.MULTILINE)
    assert {key for group in cited for key in group.split(",")} == set(entries)


def test_the_document_shows_every_part(paper: Path) -> None:
    """By names of files that are there."""
    text = (paper / "example.tex").read_text()
    shown = {f"{name}.tex" for name in re.findall(r"\\input{([^}]*)}", text)}
    shown |= set(re.findall(r"\\includegraphics\[.*?\]{([^}]*)}", text)) | {"references.bib", "example.tex"}
    assert shown == {path.name for path in paper.iterdir()}


def test_the_document_compiles(paper: Path, tmp_path: Path) -> None:
    """Without an error, an undefined reference or a table wider than the page."""
    if shutil.which("pdflatex") is None or shutil.which("bibtex") is None:
        pytest.skip("no TeX is installed")
    shutil.copytree(paper, tmp_path, dirs_exist_ok=True)
    latex_command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "example.tex"]
    for command in (latex_command, ["bibtex", "example"], latex_command, latex_command):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / "example.log").read_text(errors="replace")
    assert "undefined" not in log
    assert "too large for page" not in log
    assert max((float(found) for found in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)), default=0.0) < 30


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_no_word_is_a_command(words: str) -> None:
    """Whatever stands in a name, braces match and nothing special is left bare."""
    found = latex(words)
    bare = re.sub(r"\\(?:[&%$#_{}]|text\w+{})", "", found)
    assert not set(bare) & set("\\&%$#_{}~^<>|")


def test_a_search_has_its_parts(small_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task, one agent, no profile."""
    names = {
        path.name for path in write_paper(read(write_run(tmp_path / "r", small_table, monkeypatch)), tmp_path / "p")
    }
    assert names >= {"table-summary.tex", "protocol.tex", "references.bib"}
    assert len([name for name in names if name.endswith(".pdf")]) == 2


def test_a_file_is_no_directory(paper: Path, tmp_path: Path) -> None:
    """Nothing is written over it."""
    content = read(paper.parent / "suite")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidArgument, match="is a file"):
        write_paper(content, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_told(paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error of this project."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nas_benchmarks.report.paper.write_whole", fail)
    with pytest.raises(WriteFailed, match="No space left"):
        write_paper(read(paper.parent / "suite"), tmp_path)


def test_an_incomplete_suite_says_so_in_the_document(paper: Path, tmp_path: Path) -> None:
    """First of all."""
    content = dataclasses.replace(read(paper.parent / "suite"), first_line="Incomplete: 50 % lack.")
    write_paper(content, tmp_path)
    document = (tmp_path / "example.tex").read_text().split(r"\begin{document}")[1]
    assert document.startswith("\n\\textbf{Incomplete: 50 \\% lack.}\n")
