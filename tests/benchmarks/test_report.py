"""What a report is made of: the page and its content, of a suite and of a search."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly", reason="reports need the extra `report`")

import plotly.graph_objects as go
from report_kit import BUDGET, METHODS, rows_of, suite_of, write_run, write_suite

from nas_benchmarks.recorded import pack
from nas_benchmarks.records import RecordError, TornRow
from nas_benchmarks.report import page, read, write_page
from nas_benchmarks.report.charts import charts
from nas_benchmarks.report.content import Content, front
from nas_benchmarks.report.suite_record import banded, regret_curve
from nas_gym.errors import InvalidArgument


class Page(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style", "pre"):
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def content(small_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Return what a report of a suite shows."""
    return read(write_suite(tmp_path_factory.mktemp("report") / "suite", small_table))


@pytest.fixture(scope="module")
def parsed(content: Content) -> Page:
    """Return its page, parsed."""
    return Page(page(content))


@pytest.fixture
def run(small_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a search."""
    return write_run(tmp_path / "run", small_table, monkeypatch)


# --- the page --------------------------------------------------------------------------------------


def test_every_element_is_closed(parsed: Page) -> None:
    """In the order in which they were opened."""
    assert parsed.open == []


@pytest.mark.parametrize("name", [*METHODS, "small", "shorter_training", "NAS-Cell-v0"])
def test_every_method_and_task_is_named(parsed: Page, name: str) -> None:
    """In words that a reader sees."""
    assert name in parsed.text


def test_nothing_outside_the_file_is_named_as_a_source(parsed: Page) -> None:
    """Sources and style sheets are inside the file; links stay on the page."""
    named = [attrs[name] or "" for _, attrs in parsed.elements for name in ("src", "href", "action") if name in attrs]
    assert named
    assert [one for one in named if not one.startswith(("data:", "#"))] == []


def test_the_browser_is_told_to_load_nothing(parsed: Page) -> None:
    """By a policy that allows what is inside the file."""
    (policy,) = [attrs["content"] for _, attrs in parsed.elements if "http-equiv" in attrs]
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_the_charts_cannot_be_sent_to_a_server(content: Content) -> None:
    """Plotly's own button for that is switched off."""
    assert 'showSendToCloud: false, plotlyServerURL: ""' in page(content)


def test_every_architecture_is_drawn(parsed: Page, content: Content) -> None:
    """As a picture inside the file."""
    pytest.importorskip("pygame")
    pictures = [attrs["src"] or "" for tag, attrs in parsed.elements if tag == "img"]
    assert len(pictures) == len(content.architectures) > 0
    assert all(picture.startswith("data:image/png;base64,iVBORw0KGgo") for picture in pictures)


def test_markup_in_names_is_text(content: Content, small_table: Path, tmp_path: Path) -> None:
    """A method called like an element does not become one."""
    write_suite(tmp_path / "r", small_table)
    runs = tmp_path / "r" / "runs.jsonl"
    runs.write_text(runs.read_text().replace('"method": "evolution"', '"method": "<img src=x></script>"'))
    found = Page(page(read(tmp_path / "r")))
    assert [attrs for tag, attrs in found.elements if tag == "img" and attrs.get("src") == "x"] == []
    assert found.open == []
    assert "<img src=x></script>" in found.text


def test_every_run_can_be_downloaded(content: Content) -> None:
    """One line a run, with its regret."""
    columns, rows = content.runs
    assert len(rows) == len(METHODS) * 2 * 3
    line = dict(zip(columns, rows[0], strict=True))
    assert line[f"regret_at_{BUDGET}"] >= 0
    assert {row[columns.index("method")] for row in rows} == set(METHODS)


def test_every_figure_is_valid(content: Content) -> None:
    """Plotly's own validation accepts it, and it is JSON."""
    drawn = charts(content)
    assert [(chart.section, chart.task) for chart in drawn] == [
        ("curves", "shorter_training"), ("curves", "small"), ("profiles", ""), ("profiles", "shorter_training"),
        ("profiles", "small"), ("costs", "shorter_training"), ("costs", "small"),
    ]  # fmt: skip
    for chart in drawn:
        go.Figure(json.loads(json.dumps(chart.figure, allow_nan=False)))


# --- suites ----------------------------------------------------------------------------------------


def test_the_last_point_of_a_curve_is_the_recorded_regret(small_table: Path) -> None:
    """The curve is rebuilt from the changes of the incumbent."""
    for row in rows_of(small_table):
        assert regret_curve(row, np.array([float(BUDGET)]))[0] == pytest.approx(row["regret"][str(BUDGET)], abs=1e-12)


def test_before_the_first_success_the_regret_is_that_of_the_worst(small_table: Path) -> None:
    """As in the scores of a run."""
    row = {**rows_of(small_table)[0], "incumbents": [[5, 0.5, 0.7]]}
    yardstick = row["yardstick"]
    found = regret_curve(row, np.array([4.0, 5.0]))
    assert found == pytest.approx([yardstick["best"] - yardstick["worst"], yardstick["best"] - 0.7])


def test_a_band_holds_the_mean_and_is_that_of_the_bootstrap() -> None:
    """Against the normal approximation: 1.96 standard errors on either side."""
    values = np.random.default_rng(0).normal(size=(400, 2))
    mean, low, high = banded(values, np.random.default_rng(1), 4000)
    error = 1.96 * values.std(axis=0) / 20
    assert mean == pytest.approx(values.mean(axis=0))
    assert low == pytest.approx(mean - error, abs=0.15 * error.max())
    assert high == pytest.approx(mean + error, abs=0.15 * error.max())


def test_a_single_seed_has_no_band_and_the_page_says_so(small_table: Path, tmp_path: Path) -> None:
    """Neither curves nor profiles."""
    found = read(write_suite(tmp_path / "r", small_table, seeds=1))
    assert all(curve.low is None for curve in (*found.curves, *found.profiles))
    text = Page(page(found)).text
    assert "There is a single seed: no band can be drawn" in text
    assert "bootstrap intervals and performance profiles" not in text


def test_one_task_is_enough(small_table: Path, tmp_path: Path) -> None:
    """There is no choice of a task then, and one profile."""
    found = read(write_suite(tmp_path / "r", small_table, tasks=1))
    assert {curve.task for curve in found.profiles} == {"small"}
    assert not [attrs for tag, attrs in Page(page(found)).elements if tag == "select" and attrs.get("id") == "task"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("bench", "run", "--allow-missing"), "left out (--allow-missing)"),
        (("bench",), "not run yet, or not asked for"),
    ],
)
def test_tasks_that_lack_are_on_the_first_line(
    small_table: Path, tmp_path: Path, command: tuple[str, ...], reason: str
) -> None:
    """Before the title."""
    found = read(write_suite(tmp_path / "r", small_table, tasks=1, command=command))
    body = page(found).split("<body>")[1]
    first = Page(body.split("<h1>")[0]).text
    assert first == f"Incomplete: the suite also has the tasks shorter_training; {reason}."


def test_a_complete_suite_has_no_such_line(content: Content) -> None:
    """Nothing stands above the title."""
    assert content.first_line == ""


def test_costs_are_those_of_runs_and_of_the_table(content: Content) -> None:
    """What the table knows of the chosen architecture, and what the run took."""
    assert set(content.costs) >= {"parameters", "train_seconds", "simulated_seconds", "wall_seconds"}


def test_another_table_is_not_looked_up(small_table: Path, tmp_path: Path) -> None:
    """Its costs would be those of other networks."""
    write_suite(tmp_path / "r", small_table)
    runs = tmp_path / "r" / "runs.jsonl"
    runs.write_text(re.sub(r'"table_sha256": "[0-9a-f]+"', '"table_sha256": "other"', runs.read_text()))
    found = read(tmp_path / "r")
    assert "parameters" not in found.costs
    assert any("another one than that of the record" in note for note in found.notes)


def test_a_lost_table_leaves_the_rest(small_table: Path, tmp_path: Path) -> None:
    """The architectures are named but not drawn."""
    write_suite(tmp_path / "r", small_table)
    for name in ("runs.jsonl", "suite.json"):
        file = tmp_path / "r" / name
        file.write_text(file.read_text().replace(str(small_table), "/nowhere/lost.parquet"))
    found = read(tmp_path / "r")
    assert all(one.picture is None for one in found.architectures)
    assert found.architectures[0].notation in Page(page(found)).text


def test_a_packed_record_is_reported_too(small_table: Path, tmp_path: Path) -> None:
    """With the same curves as the directory it was made of."""
    pack(rows_of(small_table), tmp_path / "suite.parquet")
    found = read(tmp_path / "suite.parquet")
    assert (found.methods, found.facts.runs) == (read(write_suite(tmp_path / "r", small_table)).methods, 18)


def test_the_paragraph_is_made_of_the_record(parsed: Page, small_table: Path) -> None:
    """Numbers, the table's hash, and what a repeated query does."""
    sha = rows_of(small_table)[0]["table_sha256"][:12]
    for words in (
        "3 methods on 2 tasks with 3 seeds each, 18 runs in all",
        "a budget of 12 charged queries",
        "gives the same answer and is charged again",
        sha,
        "Of 18 runs, 18 used the whole budget; no queries failed.",
    ):
        assert words in parsed.text


# --- searches --------------------------------------------------------------------------------------


def test_a_search_ends_at_the_regret_of_its_summary(run: Path) -> None:
    """Both are those of the held-out metric."""
    found = read(run)
    summary = json.loads((run / "summary.json").read_text())
    assert found.curves[0].y[-1] == pytest.approx(summary["best"]["standing"]["regret"], abs=1e-9)
    assert found.axis.title == "Regret"


def test_a_search_has_a_point_for_every_architecture(run: Path) -> None:
    """Its search-time metric against what it cost."""
    found = read(run)
    distinct = {tuple(json.loads(line)["encoding"]) for line in (run / "evaluations.jsonl").read_text().splitlines()}
    assert len(found.points) == len(distinct)
    assert (found.value_label, found.costs) == ("valid accuracy", ("train_seconds", "parameters"))


def test_a_search_says_that_it_has_one_seed(run: Path) -> None:
    """There is no band."""
    found = read(run)
    assert found.curves[0].low is None
    assert "single seed" in Page(page(found)).text


def test_without_the_best_of_the_space_rewards_are_shown(small_table: Path, run: Path) -> None:
    """The page says why."""
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "table_sha256": "other"}))
    found = read(run)
    assert (found.axis.title, found.axis.log) == ("Best reward", False)
    assert "The best of the space is not known" in Page(page(found)).text


def test_an_unfinished_search_is_reported(run: Path) -> None:
    """Without its summary, and with a torn last line."""
    (run / "summary.json").unlink()
    with (run / "evaluations.jsonl").open("a") as file:
        file.write('{"row": 16, "enco')
    with pytest.warns(TornRow):
        found = read(run)
    assert "The search has not ended" in Page(page(found)).text
    assert len(found.runs[1]) == 15


def test_a_search_without_a_success_is_reported(run: Path) -> None:
    """Nothing to draw, no crash."""
    file = run / "evaluations.jsonl"
    rows = [{**json.loads(line), "status": "diverged", "metrics": {}} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "None was evaluated successfully." in Page(page(read(run))).text


# --- bad input -------------------------------------------------------------------------------------


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    """Naming what lacks."""
    with pytest.raises(InvalidArgument, match=r"it has no config\.json and evaluations\.jsonl.*no runs\.jsonl"):
        read(tmp_path)
    with pytest.raises(InvalidArgument, match="does not exist"):
        read(tmp_path / "nothing")


def test_an_empty_record_is_refused(run: Path, tmp_path: Path) -> None:
    """There is nothing to show."""
    (run / "evaluations.jsonl").write_text("")
    with pytest.raises(InvalidArgument, match="no evaluated architecture"):
        read(run)
    (tmp_path / "runs.jsonl").write_text("")
    with pytest.raises(InvalidArgument, match="no finished run"):
        read(tmp_path)


def test_a_damaged_record_is_refused(run: Path, small_table: Path, tmp_path: Path) -> None:
    """Naming the file."""
    (run / "config.json").write_text('{"env": ')
    with pytest.raises(RecordError, match=r"config\.json cannot be read"):
        read(run)
    (run / "config.json").write_text('{"env": "NAS-Cell-v0"}')
    with pytest.raises(RecordError, match="lacks what a run of this version records"):
        read(run)
    suite = write_suite(tmp_path / "r", small_table)
    (suite / "runs.jsonl").write_text('{"format": 1, "task": "a", "method": "b", "seed": 0}\n')
    with pytest.raises(RecordError, match="lacks what a suite of this version records"):
        read(suite)


def test_only_a_report_is_replaced(content: Content, tmp_path: Path) -> None:
    """Whatever else there is stays."""
    target = tmp_path / "report.html"
    write_page(content, target)
    first = target.read_bytes()
    write_page(content, target)
    assert target.read_bytes() == first
    (tmp_path / "notes.html").write_text("mine")
    with pytest.raises(InvalidArgument, match="no report of nas-gym"):
        write_page(content, tmp_path / "notes.html")
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_the_front_is_what_nothing_surpasses() -> None:
    """Against all pairs."""
    rng = np.random.default_rng(0)
    points = [(float(cost), float(value)) for cost, value in rng.integers(0, 12, (60, 2))]
    best = {
        one for one in points if not any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)
    }
    assert front(points) == sorted(best)


def test_the_definition_of_the_kit_is_a_suite_with_two_tasks(small_table: Path) -> None:
    """What the other tests rely on."""
    assert [task.name for task in suite_of(small_table).tasks] == ["small", "shorter_training"]
