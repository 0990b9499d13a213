"""The interactive figures of all trials: the Pareto front, and what a step costs in seconds."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

from search.report.baseline import Baseline
from search.report.confirmed import Confirmed
from search.report.curve import WidthCurve
from search.report.plotly import (
    DICE,
    GFLOPS,
    STEP_SECONDS,
    Axis,
    Figure,
    apart,
    at_border,
    dice_range,
    figure,
    hover_text,
    log_axis,
    within,
)
from search.report.trials import ReportTrial, State, front_of, heights_of
from search.space.objectives import COSTS, Objectives

USUAL = Objectives()
Mark = tuple[int, float, float, float]
"""A network trained again: trial, cost, mean Dice and its standard deviation."""
COLORS: dict[State, str] = {
    "front": "#0072B2",
    "dominated": "#8c959f",
    "stopped": "#E69F00",
    "over limit": "#9a5fb5",
    "failed": "#D55E00",
}
"""The states that are drawn, in the order of the legend."""
AGAIN = "#009E73"
"""The colour of the front trained again."""
PLANNED = "#CC79A7"
"""The colour of what nnU-Net planned or trained."""
TRAINED = "finished nnU-Net training"
SYMBOLS: dict[State, str] = {
    "front": "circle",
    "dominated": "circle",
    "stopped": "triangle-down-open",
    "over limit": "x",
    "failed": "cross",
}
_NAMES: dict[State, str] = {"stopped": "stopped at a rung (its Dice there)"}
OFF = "stopped, Dice off this axis"
WITHOUT_DICE: tuple[State, ...] = ("over limit", "failed")
_WIDTH_OF_LABEL = 0.04  # of the axis; labels closer than this would cover each other


def pareto_figure(
    trials: Sequence[ReportTrial],
    confirmed: Confirmed | None = None,
    curves: Sequence[WidthCurve] = (),
    baselines: Sequence[Baseline] = (),
    objectives: Objectives = USUAL,
    against: str | None = None,
) -> Figure:
    """Return Dice against a cost; below it, at their cost, the trials that have no Dice.

    The first of the objectives, or another that was measured. `confirmed` adds the front as it was
    trained again, `curves` and `baselines` the lines to beat.
    """
    name = objectives.costs[0] if against is None else against

    def cost(trial: ReportTrial) -> float | None:
        return trial.cost(name)

    scored = [t for t in trials if cost(t) and t.dice is not None and t.state in COLORS]
    others = [t for t in trials if cost(t) and t.dice is None and t.state in WITHOUT_DICE]
    costs = [cost(t) or 1.0 for t in [*scored, *others]]
    x = log_axis(costs, COSTS[name].title)
    marks = marks_at(confirmed, trials, name) if confirmed is not None else []
    heights = heights_of(scored)
    heights += [end for _, _, mean, spread in marks for end in (mean - spread, mean + spread)]
    heights += [baseline.dice for baseline in baselines]
    title = f"validation {objectives.dice_label}"
    ends = dice_range(heights)
    y: Axis = {"title": {"text": title}, "range": list(ends)}
    data = [_points("dominated", [t for t in scored if t.state == "dominated"], cost, _dice)]
    data += _stopped(scored, cost, ends)
    data += [_curve_line(curve, cost) for curve in curves]
    data += [
        {**_baseline_line(baseline, x["range"]), "showlegend": index == 0}
        for index, baseline in enumerate(baselines)
    ]
    front = front_of(scored)
    line = _front_line(front, x["range"], y["range"], cost)
    if objectives.costs != (name,):  # steps would say that what is behind another is not on it
        line |= {"mode": "markers+text"}
    data.append(line)
    anchors = [t for t in scored if t.anchor]
    ring = {"symbol": "diamond-open", "size": 17, "color": "#1b1f24", "line": {"width": 1.5}}
    data.append(
        {
            **_points("front", anchors, cost, _dice),
            "name": "anchor (reference)",
            "marker": ring,
        }
    )
    if confirmed is not None:
        data.append(_again(confirmed, marks))
    layout: dict[str, Any] = {"xaxis": x, "yaxis": y, "height": 520}
    if others:
        names: list[State] = [
            s for s in ("over limit", "failed") if any(t.state == s for t in others)
        ]
        strip = 0.06 * len(names) + 0.02
        y["domain"] = [strip + 0.05, 1.0]
        x["anchor"] = "y2"
        layout["yaxis2"] = {
            "domain": [0, strip],
            "type": "category",
            "categoryarray": names[::-1],
            "categoryorder": "array",
            "range": [-0.6, len(names) - 0.4],
            "fixedrange": True,
        }
        for state in names:
            found = [t for t in others if t.state == state]
            data.append({**_points(state, found, cost, lambda t: t.state), "yaxis": "y2"})
    return figure([trace for trace in data if trace["x"]], layout)


def _curve_line(curve: WidthCurve, cost: Callable[[ReportTrial], float | None]) -> dict[str, Any]:
    """Return what nnU-Net planned, by width: each point called what it is, the last to its left."""
    points = [point for point in curve.points if cost(point)]
    sides = ["bottom right"] * (len(points) - 1) + ["bottom left"]
    return {
        **_points("front", points, cost, _dice),
        "mode": "lines+markers+text",
        "name": html.escape(f"{curve.plans} by width: to beat"),
        "line": {"color": PLANNED, "width": 2, "dash": "dash"},
        "marker": {"symbol": "square", "color": PLANNED, "size": 8},
        "text": [html.escape(curve.label(point)) for point in points],
        "textposition": sides[-len(points) :] if points else [],
        "textfont": {"color": PLANNED, "size": 12},
        "hovertext": [hover_text(point) for point in points],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _baseline_line(baseline: Baseline, x_range: Sequence[float]) -> dict[str, Any]:
    """Return its Dice as a level, its name at the left end."""
    told = html.escape(baseline.text())
    return {
        "type": "scatter",
        "mode": "lines+text",
        "name": TRAINED,
        "x": [10**end for end in x_range],
        "y": [baseline.dice] * 2,
        "customdata": [None, None],
        "text": [html.escape(baseline.short_label), ""],
        "textposition": "top right",
        "textfont": {"color": PLANNED, "size": 11},
        "hovertext": [told, told],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "line": {"color": PLANNED, "width": 1.5, "dash": "dot"},
    }


def axes_of(trials: Sequence[ReportTrial], objectives: Objectives) -> list[str]:
    """Return the costs that the front can be shown against, the first of the objectives first.

    Its others, and FLOPs and latency, where the whole front has them.
    """
    front, names = front_of(trials), (*objectives.costs, "flops", "latency")
    return [name for name in dict.fromkeys(names) if all(trial.cost(name) for trial in front)]


def marks_at(confirmed: Confirmed, trials: Sequence[ReportTrial], cost: str) -> list[Mark]:
    """Return the marks of the front trained again, at a cost in place of GFLOPs."""
    at = {trial.number: trial.cost(cost) for trial in trials}
    return [(n, place, mean, sd) for n, _, mean, sd in confirmed.marks() if (place := at.get(n))]


def _again(confirmed: Confirmed, marks: Sequence[Mark]) -> dict[str, Any]:
    """Return the front trained again: the mean over seeds, and their standard deviation as bars."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": confirmed.label,
        "x": [gflops for _, gflops, _, _ in marks],
        "y": [mean for _, _, mean, _ in marks],
        "error_y": {"type": "data", "array": [spread for *_, spread in marks], "thickness": 1.5},
        "customdata": [number for number, *_ in marks],
        "text": [
            f"<b>trial {number}</b>, trained again<br>{confirmed.part} Dice {mean:.4f}"
            f", sd {spread:.4f} over {confirmed.found.seeds} seeds"
            for number, _, mean, spread in marks
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "square", "color": AGAIN, "size": 8},
    }


def latency_figure(trials: Sequence[ReportTrial]) -> Figure | None:
    """Return Dice and GFLOPs against the seconds of a step; None where no seconds are known."""
    timed = [t for t in trials if t.seconds_per_step and t.gflops and t.dice is not None]
    if not timed:
        return None
    seconds = [t.seconds_per_step or 1.0 for t in timed]
    ends = dice_range(heights_of(timed))
    data = _stopped(timed, _step_seconds, ends)
    for state in ("front", "dominated", "stopped"):
        found = [t for t in timed if t.state == state]
        if state != "stopped":
            data.append(_points(state, found, _step_seconds, _dice))
        right = _points(state, found, _gflops, _step_seconds)
        data.append({**right, "xaxis": "x2", "yaxis": "y2", "showlegend": False})
    layout = {
        "xaxis": {**log_axis(seconds, STEP_SECONDS), "domain": [0, 0.44]},
        "yaxis": {"title": {"text": DICE}, "range": list(ends)},
        "xaxis2": {
            **log_axis([t.gflops or 1.0 for t in timed], GFLOPS),
            "domain": [0.56, 1],
            "anchor": "y2",
        },
        "yaxis2": {**log_axis(seconds, STEP_SECONDS), "anchor": "x2"},
        "height": 400,
    }
    return figure([trace for trace in data if trace["x"]], layout)


def _stopped(
    trials: Sequence[ReportTrial],
    x: Callable[[ReportTrial], float | None],
    ends: tuple[float, float],
) -> list[dict[str, Any]]:
    """Return the stopped trials, and at the border of the axis those whose Dice is beyond it."""
    stopped = [t for t in trials if t.state == "stopped"]
    seen = [t for t in stopped if within(t.dice or 0.0, ends)]
    beyond = [t for t in stopped if t not in seen]
    off = _points("stopped", beyond, x, lambda t: at_border(t.dice or 0.0, ends))
    off["marker"] = {**off["marker"], "symbol": "triangle-down"}
    return [_points("stopped", seen, x, _dice), {**off, "name": OFF}]


def _gflops(trial: ReportTrial) -> float | None:
    return trial.gflops


def _dice(trial: ReportTrial) -> float | None:
    return trial.dice


def _step_seconds(trial: ReportTrial) -> float | None:
    return trial.seconds_per_step


def _points(
    state: State,
    trials: Sequence[ReportTrial],
    x: Callable[[ReportTrial], Any],
    y: Callable[[ReportTrial], Any],
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _NAMES.get(state, state),
        "x": [x(trial) for trial in trials],
        "y": [y(trial) for trial in trials],
        "customdata": [trial.number for trial in trials],
        "text": [hover_text(trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": SYMBOLS[state],
            "color": COLORS[state],
            "size": 10 if state == "front" else 8,
        },
    }


def _front_line(
    front: Sequence[ReportTrial],
    x_range: Sequence[float],
    y_range: Sequence[float],
    cost: Callable[[ReportTrial], float | None],
) -> dict[str, Any]:
    """Return the front as steps; trial numbers where there is room for them."""
    width, height = x_range[1] - x_range[0], y_range[1] - y_range[0]
    places = [(math.log10(cost(t) or 1), t.dice or 0.0) for t in front]
    labelled = apart(places, _WIDTH_OF_LABEL * width, _WIDTH_OF_LABEL * height)
    hover = [hover_text(trial) for trial in front]
    return {
        **_points("front", front, cost, _dice),
        "mode": "lines+markers+text",
        "name": "Pareto front (trial numbers)",
        "line": {"shape": "hv", "color": COLORS["front"], "width": 2},
        "text": [str(t.number) if i in labelled else "" for i, t in enumerate(front)],
        "textposition": "top left",
        "textfont": {"color": COLORS["front"], "size": 12},
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
