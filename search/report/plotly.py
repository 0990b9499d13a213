"""What the figures of a report share: layout, logarithmic axes and the text of the boxes.

A figure is the plain data that plotly.js draws. plotly's Python classes, which take seconds to
import, are not used.
"""

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from search.report.trials import ReportTrial

Figure = dict[str, Any]
Axis = dict[str, Any]

GFLOPS = "GFLOPs per patch"
DICE = "validation Dice"
STEP_SECONDS = "seconds per training step"


def hover_text(trial: ReportTrial) -> str:
    """Return the text of the box, escaped where it is not ours: plotly.js reads HTML in it."""
    lines = [f"<b>trial {trial.number}</b>, {trial.state}{', anchor' * trial.anchor}"]
    if trial.network:
        lines.append(html.escape(_short(trial.network)))
    if trial.dice is not None:
        lines.append(f"Dice {trial.dice:.4f} at step {trial.step:,}")
    costs = [f"{trial.gflops:.4g} GFLOPs"] if trial.gflops else []
    costs += [f"{trial.costs.params:,} parameters"] if trial.costs.params else []
    lines += [", ".join(costs)] if costs else []
    if trial.costs.calibrated:
        lines.append(f"latency of {trial.costs.calibrated:.3g} calibrations")
    if trial.seconds_per_step:
        lines.append(f"{trial.seconds_per_step:.3g} s per step")
    shown = list(trial.choices.items())[:8]
    lines += [html.escape(_short(f"{name}: {_plain(value)}")) for name, value in shown]
    if len(trial.choices) > len(shown):
        lines.append(f"and {len(trial.choices) - len(shown)} more")
    if trial.reason:
        lines.append(html.escape(_short(trial.reason)))
    return "<br>".join(lines)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _short(text: str, limit: int = 72) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def log_axis(values: Sequence[float], title: str) -> Axis:
    """Return a logarithmic axis whose ticks are numbers, not bare digits between powers of ten."""
    ticks, labels = log_ticks(values)
    return {
        "type": "log",
        "title": {"text": title},
        "range": list(log_range(values)),
        "tickvals": ticks,
        "ticktext": labels,
    }


def figure(data: list[dict[str, Any]], layout: dict[str, Any]) -> Figure:
    """Return the figure with the looks that all of them share."""
    axes = {
        name: {"gridcolor": "#e5e8eb", "linecolor": "#8c959f", "showline": True, "zeroline": False}
        | {"ticks": "outside", "automargin": True}
        | axis
        for name, axis in layout.items()
        if "axis" in name
    }
    common = {
        "template": {},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1b1f24"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 70, "r": 45, "t": 20, "b": 60},
        "modebar": {"orientation": "v"},  # a horizontal one would cover the legend
        "hoverlabel": {"align": "left", "bgcolor": "white"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    return {"data": data, "layout": {**common, **layout, **axes}}


def log_ticks(values: Iterable[float]) -> tuple[list[float], list[str]]:
    """Return ticks at 1, 2 and 5 of every decade that the values touch, or at 1 of many decades."""
    low, high = log_range(values)
    decades = range(math.floor(low), math.ceil(high) + 1)
    digits = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return ticks, [f"{tick:g}" for tick in ticks]


def log_range(values: Iterable[float]) -> tuple[float, float]:
    """Return log10 of the ends of an axis: a margin around the values, and room for two ticks."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = min(logs), max(logs)
    margin = max(0.06 * (high - low), 0.05, (0.7 - (high - low)) / 2)
    return low - margin, high + margin


def dice_range(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis of Dice: a margin around the values, never outside -0.02..1.02."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    margin = max(0.07 * (high - low), 0.01)
    return max(low - margin, -0.02), min(high + margin, 1.02)


def within(value: float, ends: tuple[float, float]) -> bool:
    """Say whether an axis of these ends shows the value."""
    return ends[0] <= value <= ends[1]


def at_border(value: float, ends: tuple[float, float]) -> float:
    """Return where a mark stands for a value beyond the axis: inside it, by half of its height."""
    inset = 0.015 * (ends[1] - ends[0])
    return min(max(value, ends[0] + inset), ends[1] - inset)


def apart(points: Iterable[tuple[float, float]], dx: float, dy: float) -> list[int]:
    """Return the indices of points to label: each farther than (dx, dy) from those before it."""
    chosen: list[tuple[int, float, float]] = []
    for index, (x, y) in enumerate(points):
        if all(abs(x - u) > dx or abs(y - v) > dy for _, u, v in chosen):
            chosen.append((index, x, y))
    return [index for index, _, _ in chosen]
