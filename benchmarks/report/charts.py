"""The charts of a page as Plotly's figures: plain JSON values, so that nothing but Plotly's script draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .content import ALL_TASKS, Content, Curve, Floats, front
from .style import Look, looks

_DIGITS = 6
_HEIGHT, _ROW, _COLUMNS = 420, 24, 4
"""Pixels of a chart, of a line of its legend, and names in such a line on a laptop."""

_LOG_FROM = 30.0
"""Costs and numbers of queries that span such a factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        section: "curves", "profiles" or "costs".
        task: what it shows; `ALL_TASKS` for all together.
        figure: ``{"data", "layout"}`` of Plotly.
    """

    section: str
    task: str
    figure: dict[str, Any]


def charts(content: Content) -> list[Chart]:
    """Return the charts of a report: curves and costs a task, profiles a task and over all."""
    found = [Chart("curves", task, _curves(content, task)) for task in content.tasks]
    scopes = dict.fromkeys(curve.task for curve in content.profiles)
    found += [Chart("profiles", scope, _profiles(content, scope)) for scope in scopes]
    with_points = dict.fromkeys(point.task for point in content.points)
    return found + [Chart("costs", task, _costs(content, task)) for task in content.tasks if task in with_points]


def cost_axes(content: Content) -> dict[str, dict[str, Any]]:
    """Return title and scale of the axis of every cost."""
    found = {}
    for name in content.costs:
        values = np.array([point.costs[name] for point in content.points if name in point.costs])
        log = bool((values > 0).all() and values.max() > _LOG_FROM * values.min())
        found[name] = {
            "title": name.replace("_", " "),
            "type": "log" if log else "linear",
            "tickformat": _ticks(values),
        }
    return found


def _ticks(values: Floats) -> str:
    """Return how numbers at an axis are written: thousands as k, but nothing as thousandths, which m would not tell."""
    return "~s" if values.max() >= 1000 else "~g"


def _curves(content: Content, task: str) -> dict[str, Any]:
    mine = [curve for curve in content.curves if curve.task == task]
    axis = content.axis
    layout = _layout(task, "queries", axis.label, len(content.methods))
    if content.facts.budget >= _LOG_FROM:
        layout["xaxis"] |= {"type": "log", "dtick": "D2", "tickformat": "~g"}
    layout["yaxis"] |= {"type": "log" if axis.log else "linear"}
    if axis.log:
        layout["yaxis"] |= {"dtick": "D2" if _decades(mine) < 2.5 else 1, "tickformat": "~g"}
    return {"data": _lines(mine, content.methods, "hv"), "layout": layout}


def _decades(curves: Sequence[Curve]) -> float:
    values = np.concatenate([curve.y for curve in curves])
    return float(np.log10(values.max() / values.min())) if len(values) and values.min() > 0 else 0.0


def _profiles(content: Content, scope: str) -> dict[str, Any]:
    mine = [curve for curve in content.profiles if curve.task == scope]
    title = "all tasks" if scope == ALL_TASKS else scope
    layout = _layout(title, "normalised score τ", "fraction of runs with score > τ", len(content.methods))
    layout["yaxis"] |= {"range": [-0.02, 1.02]}
    return {"data": _lines(mine, content.methods, "hv"), "layout": layout}


def _lines(curves: Sequence[Curve], methods: Sequence[str], shape: str) -> list[dict[str, Any]]:
    styles = looks(methods)
    found: list[dict[str, Any]] = []
    for curve in sorted(curves, key=lambda curve: methods.index(curve.method)):
        look = styles[curve.method]
        common = {"type": "scatter", "mode": "lines", "legendgroup": curve.method, "meta": {"method": curve.method}}
        if curve.low is not None and curve.high is not None:
            edge = {**common, "x": _numbers(curve.x), "line": {"width": 0, "shape": shape}, "hoverinfo": "skip"}
            fill = {"fill": "tonexty", "fillcolor": look.faint(0.13)}
            found += [
                {**edge, "y": _numbers(curve.low), "showlegend": False},
                {**edge, "y": _numbers(curve.high), "showlegend": False, **fill},
            ]
        found.append(
            {
                **common,
                "name": curve.method + (" (1 run)" if curve.runs == 1 and len(curves) > 1 else ""),
                "x": _numbers(curve.x),
                "y": _numbers(curve.y),
                "line": {"color": look.colour, "width": 2, "dash": look.dash[0], "shape": shape},
                "hovertemplate": "%{x:.4~g}: %{y:.4g}",
            }
        )
    return found


def _costs(content: Content, task: str) -> dict[str, Any]:
    """Return the scatter of value and first cost; the other costs are in ``meta``, to be chosen."""
    mine = [point for point in content.points if point.task == task]
    axes = cost_axes(content)
    first = next(iter(axes))
    styles = looks(content.methods)
    data = []
    for method in dict.fromkeys(point.method for point in mine):
        points = [point for point in mine if point.method == method]
        costs = {name: [_number(point.costs.get(name)) for point in points] for name in axes}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": method,
                "x": costs[first],
                "y": [_number(point.value) for point in points],
                "text": [point.label for point in points],
                "marker": _marker(styles[method]),
                "hovertemplate": "%{text}<br>%{x:.6~g}, %{y:.4f}",
                "meta": {"method": method, "costs": costs},
            }
        )
    edge = front([(point.costs[first], point.value) for point in mine if first in point.costs])
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [_number(cost) for cost, _ in edge],
            "y": [_number(value) for _, value in edge],
            "line": {"color": "#222", "width": 1.2, "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
            "meta": {"front": True},
        }
    )
    layout = _layout(task, axes[first]["title"], content.value_label, len(content.methods))
    layout["hovermode"] = "closest"
    layout["xaxis"] |= {"type": axes[first]["type"], "tickformat": axes[first]["tickformat"]}
    return {"data": data, "layout": layout}


def _marker(look: Look) -> dict[str, Any]:
    return {"color": look.faint(0.7), "size": 7, "symbol": look.marker[0], "line": {"color": "white", "width": 0.5}}


def _layout(title: str, x: str, y: str, methods: int) -> dict[str, Any]:
    axis = {"gridcolor": "#e4e7eb", "linecolor": "#5c677d", "ticks": "outside", "zeroline": False, "automargin": True}
    return {
        "title": {"text": title, "x": 0, "xanchor": "left", "xref": "paper", "font": {"size": 15}},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "showlegend": True,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "margin": {"l": 10, "r": 12, "t": 44, "b": 10},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1b1f24"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 12}},
        "height": _HEIGHT + _ROW * math.ceil(methods / _COLUMNS),
    }


def _numbers(values: Floats) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float | None) -> float | None:
    """Return a number with as many digits as a screen can show; JSON has no NaN."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.{_DIGITS}g}")
