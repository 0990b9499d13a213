"""What the figures of a report share: layout, logarithmic axes and the text of the boxes.

A figure is the plain data that plotly.js draws. plotly's Python classes, which take seconds to
import, are not used.
"""

import html
import json
from collections.abc import Sequence
from typing import Any

from search.report_axes import log_range, log_ticks
from search.report_trials import ReportTrial

Figure = dict[str, Any]
Axis = dict[str, Any]

GFLOPS = "GFLOPs per patch"
DICE = "validation Dice"
STEP_SECONDS = "seconds per training step"


def hover_text(trial: ReportTrial) -> str:
    """Return the text of the box, escaped where it is not ours: plotly.js reads HTML in it."""
    lines = [f"<b>trial {trial.number}</b>, {trial.state}{', anchor' * trial.anchor}"]
    if trial.dice is not None:
        lines.append(f"Dice {trial.dice:.4f} at step {trial.step:,}")
    costs = [f"{trial.gflops:.4g} GFLOPs"] if trial.gflops else []
    costs += [f"{trial.params:,} parameters"] if trial.params else []
    lines += [", ".join(costs)] if costs else []
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
