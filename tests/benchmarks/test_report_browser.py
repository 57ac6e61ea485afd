"""The page in a browser: its charts are drawn, its filters work, nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly", reason="reports need the extra `report`")

from report_kit import write_suite

from nas_benchmarks.report import page, read

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

WATCH = """<script>
window.refused = []; window.errors = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.blockedURI));
window.addEventListener("error", (event) => window.errors.push(event.message || event.target.outerHTML), true);
window.addEventListener("load", () => setTimeout(() => {
  const steps = STEPS;
  const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  const report = { fetched: fetched.filter((name) => !/^(data|blob):/.test(name)), refused, errors, steps };
  const told = document.createElement("p");
  told.id = "told";
  told.textContent = JSON.stringify(report);
  document.body.append(told);
}, 300));
</script>"""

STATE = """(() => {
  const set = (element, name, value) => { element[name] = value; element.dispatchEvent(new Event("change")); };
  const state = () => ({
    charts: [...document.querySelectorAll(".chart")].filter((one) => !one.hidden).map((one) =>
      one.querySelector(".gtitle").textContent),
    lines: [...new Set([...document.querySelectorAll("#curves .chart:not([hidden])")].flatMap((one) =>
      one.data.filter((trace) => trace.visible).map((trace) => trace.meta.method)))].sort(),
    rows: [...document.querySelectorAll("section:first-of-type tbody tr:not([hidden]) td:first-child")].map((one) =>
      one.textContent).sort(),
    costs: [...new Set([...document.querySelectorAll("#costs .chart:not([hidden]) .xtitle")].map((one) =>
      one.textContent))],
    cards: [...document.querySelectorAll(".card")].filter((one) => one.checkVisibility()).map((one) =>
      one.querySelector("b").textContent),
  });
  const before = state();
  set(document.querySelector("input[data-method=evolution]"), "checked", false);
  set(document.getElementById("task"), "value", "small");
  set(document.getElementById("cost"), "value", "parameters");
  const chosen = state();
  let saved = null;
  URL.createObjectURL = (blob) => { saved = blob.type + " " + blob.size; return "blob:nothing"; };
  HTMLAnchorElement.prototype.click = () => {};
  document.querySelector("button[data-csv='0']").click();
  return { before, chosen, saved };
})()"""


def opened(text: str, folder: Path, steps: str = "null") -> tuple[str, dict[str, Any]]:
    """Open a page without a network; return its elements after its scripts have run, and what it did.

    Args:
        text: the page.
        folder: for the file and the browser's profile.
        steps: an expression of JavaScript, evaluated once the page has loaded.
    """
    path = folder / "page.html"
    path.write_text(text.replace("<head>", "<head>" + WATCH.replace("STEPS", steps), 1), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,2000",
        "--virtual-time-budget=20000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    told = re.search(r'<p id="told">(.*?)</p>', dom)
    assert told is not None, dom[-2000:]
    return dom, json.loads(unescape(told[1]))


@pytest.fixture(scope="module")
def text(small_table: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of a small suite."""
    return page(read(write_suite(tmp_path_factory.mktemp("browser") / "suite", small_table)))


@pytest.fixture(scope="module")
def visit(text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Return what the browser makes of it."""
    return opened(text, tmp_path_factory.mktemp("visit"), STATE)


def test_every_chart_is_there(visit: tuple[str, dict[str, Any]]) -> None:
    """Regret and cost of both tasks, and the profile over both; those of single tasks wait for the filter."""
    assert visit[1]["steps"]["before"]["charts"] == [
        "shorter_training",
        "small",
        "all tasks",
        "shorter_training",
        "small",
    ]
    assert len(re.findall(r'class="chart[^"]*js-plotly-plot', visit[0])) >= 5


def test_nothing_is_fetched_and_nothing_fails(visit: tuple[str, dict[str, Any]]) -> None:
    """No resource, no attempt that the policy refused, no error of a script."""
    assert {name: visit[1][name] for name in ("fetched", "refused", "errors")} == {
        "fetched": [],
        "refused": [],
        "errors": [],
    }


def test_a_page_that_fetches_would_be_found_out(text: str, tmp_path: Path) -> None:
    """The test above can fail: one picture from elsewhere is refused and told."""
    foreign = '<img src="http://example.invalid/picture.png">'
    assert opened(text.replace("<h1>", f"{foreign}<h1>"), tmp_path)[1]["refused"] == [
        "http://example.invalid/picture.png"
    ]


def test_nothing_can_be_uploaded(visit: tuple[str, dict[str, Any]]) -> None:
    """The buttons above a chart save and zoom."""
    titles = set(re.findall(r'data-title="([^"]*)"', visit[0]))
    assert "Download plot as a PNG" in titles
    assert [title for title in titles if re.search("share|cloud|edit|plotly", title, re.IGNORECASE)] == []


def test_filters_hide_what_is_not_chosen(visit: tuple[str, dict[str, Any]]) -> None:
    """Charts and drawings of the task, curves and lines of the methods, and the cost at the axis."""
    before, chosen = visit[1]["steps"]["before"], visit[1]["steps"]["chosen"]
    assert before["lines"] == before["rows"] == ["evolution", "local_search", "random_search"]
    assert chosen["charts"] == ["small", "small", "small"]
    assert chosen["lines"] == chosen["rows"] == ["local_search", "random_search"]
    assert chosen["costs"] == ["parameters"]
    assert 0 < len(chosen["cards"]) < len(before["cards"])
    assert "evolution" not in chosen["cards"]


def test_a_table_is_saved(visit: tuple[str, dict[str, Any]]) -> None:
    """As CSV, from inside the page."""
    assert re.fullmatch(r"text/csv [1-9]\d+", visit[1]["steps"]["saved"])
