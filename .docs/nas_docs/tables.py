"""The page of the packaged tables, computed from the files."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

from nas_benchmarks.table_page import page as described
from nas_docs.markdown import Page, code, details, fence, join, table
from nas_gym.search_spaces import make_space
from nas_gym.search_spaces.core import SearchSpace
from nas_gym.tables.format import TABLES, Table, read_table


@lru_cache(maxsize=1)
def packaged() -> tuple[Table, ...]:
    """Return the tables that come with the package; those installed on this machine only are left out."""
    return tuple(read_table(path) for path in TABLES.values() if path.parent == TABLES.packaged)


def tables_of(space: SearchSpace) -> list[Table]:
    """Return the packaged tables of a search space."""
    return [one for one in packaged() if _space(one) == space]


def _space(one: Table) -> SearchSpace:
    return make_space(one.metadata["space"], one.metadata.get("space_settings"))


def pages() -> list[Page]:
    """Return the page."""
    rows = [
        (f"[`{one.name}`](#{one.name})", code(one.metadata["space"]), f"{len(one):,}", one.epochs, _megabytes(one))
        for one in packaged()
    ]
    overview = table(["Table", "Search space", "Architectures", "Epochs", "File"], rows)
    text = join(
        "# Tables",
        "In a table every architecture of a search space was really trained. These come with the package; the figures "
        "are computed from the files.",
        overview,
        *map(_section, packaged()),
    )
    return [Page("tables", text)]


def _section(one: Table) -> str:
    facts = {key: value for key, value in one.metadata.items() if key not in ("measurements", "sha256")}
    return join(
        f"## {one.name}",
        described(one),
        "### Values",
        _values(one),
        "### Recipe",
        table(["Field", "Value"], ((code(key), code(json.dumps(value))) for key, value in facts["recipe"].items())),
        details("All metadata of the file", fence("json", _readable(facts))),
    )


def _readable(facts: dict[str, Any]) -> str:
    """Return JSON with one line an entry, longer ones broken."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def _values(one: Table) -> str:
    rows = []
    for name, measurement in one.measurements.items():
        values = np.sort(one.mean(name))
        if measurement.direction == "maximize":
            values = values[::-1]
        numbers = [f"{number:,.4f}".rstrip("0").rstrip(".") for number in (values[0], values.mean(), values[-1])]
        seen = "held out" if measurement.held_out else "search"
        rows.append((code(name), measurement.unit, seen, measurement.seeds or 1, measurement.epochs or 1, *numbers))
    return table(["Metric", "Unit", "For", "Seeds", "Epochs", "Best", "Mean", "Worst"], rows)


def _megabytes(one: Table) -> str:
    return f"{one.path.stat().st_size / 1e6:.2f} MB"
