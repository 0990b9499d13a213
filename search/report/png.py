"""The picture of a report: the Pareto front among all trials."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archspec.files import replacing
from search.report.baseline import Baseline
from search.report.confirmed import Confirmed
from search.report.curve import WidthCurve
from search.report.figures import (
    AGAIN,
    COLORS,
    OFF,
    PLANNED,
    TRAINED,
    USUAL,
    WITHOUT_DICE,
    marks_at,
)
from search.report.plotly import apart, at_border, dice_range, log_range, log_ticks, within
from search.report.trials import ReportTrial, State, front_of, heights_of
from search.space.objectives import Objectives

_MARKERS: dict[State, str] = {
    "front": "o",
    "dominated": "o",
    "stopped": "v",
    "over limit": "x",
    "failed": "P",
}


def draw(
    trials: Sequence[ReportTrial],
    png: Path,
    confirmed: Confirmed | None = None,
    curves: Sequence[WidthCurve] = (),
    baselines: Sequence[Baseline] = (),
    objectives: Objectives = USUAL,
) -> None:
    """Write the PNG: Dice against the first cost, and a strip with the trials that have no Dice.

    `confirmed` adds the front as it was trained again, if it is of this front, `curves` and
    `baselines` the lines to beat. It looks the same whatever a matplotlibrc says, or nnU-Net, whose
    plots enlarge the fonts of the whole process.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        _draw(trials, png, confirmed, curves, baselines, objectives)


def _draw(
    trials: Sequence[ReportTrial],
    png: Path,
    confirmed: Confirmed | None,
    curves: Sequence[WidthCurve],
    baselines: Sequence[Baseline],
    objectives: Objectives,
) -> None:
    from matplotlib.figure import Figure

    first = objectives.costs[0]
    scored = [t for t in trials if t.cost(first) and t.dice is not None and t.state in COLORS]
    others = [t for t in trials if t.cost(first) and t.dice is None and t.state in WITHOUT_DICE]
    names = [state for state in WITHOUT_DICE if any(t.state == state for t in others)]
    picture = Figure(figsize=(8, 5.2 + 0.25 * len(names)), layout="constrained")
    rows = [1.0, 0.07 * len(names)] if names else [1.0]
    grid = picture.subplots(len(rows), 1, sharex=True, height_ratios=rows, squeeze=False)[:, 0]
    costs = [t.cost(first) or 1.0 for t in [*scored, *others]]
    shown = confirmed if confirmed is not None and confirmed.current else None
    for curve in curves:
        _draw_curve(grid[0], curve, first)
    for index, baseline in enumerate(baselines):
        label = "" if index else TRAINED
        grid[0].axhline(baseline.dice, color=PLANNED, linestyle=":", label=label)
        grid[0].annotate(
            _plain(baseline.short_label),
            (0, baseline.dice),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color=PLANNED,
            fontsize="x-small",
        )
    lines = [baseline.dice for baseline in baselines]
    _draw_scored(grid[0], scored, log_range(costs), shown, lines, objectives)
    if names:
        _draw_others(grid[1], others, names, first)
    bottom = grid[-1]
    bottom.set_xscale("log")
    low, high = log_range(costs)
    bottom.set_xlim(10**low, 10**high)
    ticks, labels = log_ticks(costs)
    bottom.set_xticks(ticks, labels)
    bottom.set_xticks([], minor=True)
    convention = " (convention v1: multiply-add = 2, scan 9BLDN)" * (first == "flops")
    bottom.set_xlabel(f"{objectives.first_cost.title}{convention}")
    with replacing(png) as partial:
        picture.savefig(partial, dpi=150, format="png")


def _draw_scored(
    axes: Any,
    scored: Sequence[ReportTrial],
    span: tuple[float, float],
    confirmed: Confirmed | None,
    lines: Sequence[float],
    objectives: Objectives,
) -> None:
    first = objectives.costs[0]
    marks = marks_at(confirmed, scored, first) if confirmed is not None else []
    heights = [*lines, *heights_of(scored)]
    heights += [end for _, _, mean, spread in marks for end in (mean - spread, mean + spread)]
    bottom, top = dice_range(heights)
    states: tuple[State, State] = ("dominated", "stopped")
    for state in states:
        found = [t for t in scored if t.state == state]
        seen = [t for t in found if t.done or within(t.dice or 0.0, (bottom, top))]
        if seen:
            _scatter(axes, state, seen, [t.dice for t in seen], first)
        if beyond := [t for t in found if t not in seen]:
            at = [at_border(t.dice or 0.0, (bottom, top)) for t in beyond]
            _scatter(axes, state, beyond, at, first, label=OFF, edgecolors="black")
    front = front_of(scored)
    x, y = [t.cost(first) or 1.0 for t in front], [t.dice or 0.0 for t in front]
    axes.plot(
        x,
        y,
        "o-" if len(objectives.costs) == 1 else "o",
        color=COLORS["front"],
        drawstyle="steps-post",
        label="Pareto front (trial numbers)",
    )
    anchors = [t for t in scored if t.anchor]
    if anchors:
        axes.plot(
            [t.cost(first) for t in anchors],
            [t.dice for t in anchors],
            "D",
            markersize=12,
            fillstyle="none",
            color="black",
            label="anchor (reference)",
        )
    if confirmed is not None:
        axes.errorbar(
            [gflops for _, gflops, _, _ in marks],
            [mean for _, _, mean, _ in marks],
            yerr=[spread for *_, spread in marks],
            fmt="s",
            markersize=5,
            capsize=3,
            color=AGAIN,
            label=confirmed.label,
        )
    places = [(math.log10(cost), dice) for cost, dice in zip(x, y, strict=True)]
    for index in apart(places, 0.04 * (span[1] - span[0]), 0.04 * (top - bottom)):
        axes.annotate(
            str(front[index].number),
            (x[index], y[index]),
            xytext=(-5, 5),
            textcoords="offset points",
            ha="right",
            color=COLORS["front"],
        )
    axes.set_ylim(bottom, top)
    label = "Dice, mean of classes" if objectives.is_mean else objectives.dice_label
    axes.set_ylabel(_plain(f"validation {label}"))
    axes.grid(alpha=0.3)
    columns = 3 if len(axes.get_legend_handles_labels()[1]) <= 6 else 2
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        frameon=False,
        fontsize="small",
    )


def _draw_curve(axes: Any, curve: WidthCurve, cost: str) -> None:
    """Draw what nnU-Net planned, by width; the name of the last point goes to its left."""
    x = [point.cost(cost) or 1.0 for point in curve.points]
    y = [point.dice or 0.0 for point in curve.points]
    label = _plain(f"{curve.plans} by width: to beat")
    axes.plot(x, y, "s--", markersize=5, color=PLANNED, label=label)
    for index, point in enumerate(curve.points):
        last = index == len(curve.points) - 1
        axes.annotate(
            _plain(curve.label(point)),
            (x[index], y[index]),
            xytext=(-7 if last else 5, -15),
            textcoords="offset points",
            ha="right" if last else "left",
            color=PLANNED,
            fontsize="small",
        )


def _plain(text: str) -> str:
    """Return the text as matplotlib shows it, which reads formulas between dollars."""
    return text.replace("$", r"\$")


def _draw_others(
    axes: Any, others: Sequence[ReportTrial], names: Sequence[State], cost: str
) -> None:
    for height, state in enumerate(reversed(names)):
        found = [t for t in others if t.state == state]
        _scatter(axes, state, found, [height] * len(found), cost)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(alpha=0.3, axis="x")


def _scatter(
    axes: Any, state: State, found: Sequence[ReportTrial], heights: Any, cost: str, **looks: Any
) -> None:
    label = "stopped (Dice at its rung)" if state == "stopped" else state
    looks = {"color": COLORS[state], "marker": _MARKERS[state], "label": label, **looks}
    axes.scatter([t.cost(cost) for t in found], heights, **looks)
