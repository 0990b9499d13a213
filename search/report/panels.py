"""The figures about the front: hypervolume over time, where its FLOPs go, Dice by class."""

import html
from collections.abc import Sequence

from search.report.plotly import DICE, GFLOPS, Figure, dice_range, figure, log_axis
from search.report.summary import HypervolumeHistory
from search.report.trials import ReportTrial

_BLUE = "#0072B2"
_CLASS_COLORS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#000000",
    "#8c959f",
)
_KIND_COLORS = {
    "conv": "#0072B2",
    "transposed_conv": "#56B4E9",
    "linear": "#009E73",
    "causal_conv1d": "#F0E442",
    "attention": "#E69F00",
    "scan": "#D55E00",
    "multiply-adds": "#0072B2",
}


def hypervolume_figure(history: HypervolumeHistory) -> Figure:
    """Return the hypervolume against the trials that ended, and against the seconds trained."""
    y = [point.hypervolume for point in history.points]
    line: Figure = {"mode": "lines+markers", "line": {"shape": "hv", "color": _BLUE}, "y": y}
    line |= {"type": "scatter", "marker": {"size": 4}, "showlegend": False}
    hover = "%{x:.4~g}: %{y:.4f}<extra></extra>"
    data = [
        {**line, "x": [p.trials for p in history.points], "hovertemplate": f"trials {hover}"},
        {
            **line,
            "x": [p.seconds for p in history.points],
            "hovertemplate": f"seconds {hover}",
            "xaxis": "x2",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "trials that ended"}, "domain": [0, 0.48]},
        "xaxis2": {
            "title": {"text": "seconds of training, all trials"},
            "domain": [0.52, 1],
        },
        "yaxis": {"title": {"text": "hypervolume"}, "rangemode": "tozero"},
        "height": 320,
    }
    return figure(data, layout)


def flops_figure(front: Sequence[ReportTrial], kinds: Sequence[dict[str, int]]) -> Figure:
    """Return the share of every kind of operation in the FLOPs of the front, cheapest first."""
    names = list(dict.fromkeys(name for counts in kinds for name in counts))
    ticks = [f"{t.number}<br>{t.gflops:.3g}" for t in front]
    data = [
        {
            "type": "bar",
            "name": name.replace("_", " "),
            "x": ticks,
            "y": [100 * c.get(name, 0) / max(1, sum(c.values())) for c in kinds],
            "customdata": [c.get(name, 0) / 1e9 for c in kinds],
            "marker": {"color": _KIND_COLORS.get(name, "#8c959f")},
            "hovertemplate": "%{y:.1f} %, %{customdata:.4~g} GFLOPs",
        }
        for name in names
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.25,
        "xaxis": {"type": "category", "title": {"text": "trial, GFLOPs"}},
        "yaxis": {"title": {"text": "share of FLOPs, %"}, "range": [0, 100]},
        "hovermode": "x unified",
        "height": 360,
    }
    return figure(data, layout)


def classes_figure(front: Sequence[ReportTrial]) -> Figure:
    """Return the Dice of every class and group along the front."""
    names = list(dict.fromkeys(name for trial in front for name in trial.scores))
    data = []
    for index, name in enumerate(names):
        found = [t for t in front if name in t.scores]
        color = _CLASS_COLORS[index % len(_CLASS_COLORS)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": html.escape(name),
                "x": [t.gflops for t in found],
                "y": [t.scores[name] for t in found],
                "line": {"color": color, "width": 1.5, "dash": "solid" if index < 8 else "dot"},
                "marker": {"size": 7},
                "hovertemplate": "%{y:.3f}",
            }
        )
    values = [value for t in front for value in t.scores.values()]
    layout = {
        "xaxis": log_axis([t.gflops or 1.0 for t in front], GFLOPS),
        "yaxis": {"title": {"text": DICE}, "range": list(dice_range(values))},
        "height": 400,
    }
    return figure(data, layout)
