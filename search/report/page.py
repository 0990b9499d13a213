"""The page of a report: one HTML file that needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from search.report.baseline import Baseline
from search.report.confirmed import Confirmed
from search.report.curve import Standing, width_curves
from search.report.figures import axes_of, latency_figure, pareto_figure
from search.report.gallery import LARGEST_PAGE, Gallery, data_url
from search.report.panels import classes_figure, flops_figure, hypervolume_figure
from search.report.plotly import Figure
from search.report.summary import (
    Change,
    Differences,
    budget,
    hypervolume_history,
    machines,
    reasons,
)
from search.report.trials import ReportTrial, front_of
from search.space.objectives import COSTS
from search.study.record import RunRecord
from search.study.session import noted_sizes
from search.trials.pictures import BOTH, LABEL, PREDICTION

OUTLINES = (("label", LABEL), ("prediction", PREDICTION), ("both", BOTH))
_SENTENCES = 4000
"""Bytes of what the page says around the pictures, at most."""


@dataclass(frozen=True)
class _Entry:
    """What the page shows of one trial; `costed` is the diff with costs.

    That and the `drawing` are for the front.
    """

    trial: ReportTrial
    changes: list[Change]
    costed: str | None
    drawing: str | None


def render_page(
    record: RunRecord,
    trials: Sequence[ReportTrial],
    sessions: Sequence[dict[str, Any]],
    confirmed: Confirmed | None = None,
    baselines: Sequence[Baseline] = (),
    gallery: Gallery | None = None,
) -> str:
    """Return the HTML; equal for equal arguments.

    Of the `gallery` it has what fits.

    Everything that a run holds is text to Jinja, which escapes it, or JSON; the page forbids itself
    to load anything.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    last = sessions[-1] if sessions else {}
    differences = Differences(trials, noted_sizes(last))
    front = front_of(trials)
    shown = confirmed if confirmed is not None and confirmed.current else None
    history = hypervolume_history(trials, record.max_gflops)
    curves = width_curves(trials)
    objectives = record.objectives
    drawn = [one for one in curves if one.points]
    axes = axes_of(trials, objectives)
    figures: dict[str, Figure | None] = {
        _pareto(name, axes): pareto_figure(trials, shown, drawn, baselines, objectives, name)
        for name in axes
    }
    figures |= {
        "hypervolume": hypervolume_figure(history),
        "flops": flops_figure(front, [differences.flops_by_kind(trial) for trial in front]),
        "latency": latency_figure(trials),
        "classes": classes_figure(front),
    }
    environment = Environment(
        loader=PackageLoader("search.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    render = partial(
        environment.get_template("report.html").render,
        record=record,
        settings=record.settings,
        objectives=objectives,
        axes=[(_pareto(name, axes), COSTS[name].title) for name in axes],
        other_costs=[(name, COSTS[name].head) for name in objectives.other_costs],
        sessions=sessions,
        split=last.get("split", {}),
        trials=trials,
        front=front,
        confirmed=shown,
        stale=confirmed is not None and shown is None,
        standings=[Standing.of(curve, trials) for curve in curves],
        baselines=baselines,
        anchors=[trial for trial in trials if trial.anchor],
        classes=list(dict.fromkeys(name for t in front for name in t.scores)),
        entries=[_entry(differences, trial) for trial in trials if trial.spec is not None],
        base=differences.base,
        history=history,
        final=history.points[-1].hypervolume if history.points else 0.0,
        budget=budget(trials),
        reasons=reasons(trials),
        machines=machines(trials),
        dates=_dates(trials),
        figures={name: found for name, found in figures.items() if found is not None},
        plotly_js=Markup(get_plotlyjs()),
        data_url=data_url,
        outlines=OUTLINES,
    )
    if gallery is None or not gallery.rows:
        return render(gallery=gallery)
    room = LARGEST_PAGE - _SENTENCES - len(render(gallery=None).encode())
    return render(gallery=gallery.within(room))


def _pareto(cost: str, axes: Sequence[str]) -> str:
    """Return the name of the figure against a cost; that of the first has its place on the page."""
    return "pareto" if cost == axes[0] else f"pareto against {cost}"


def _entry(differences: Differences, trial: ReportTrial) -> _Entry:
    base = differences.base
    alone = base is None or trial.number == base.number
    costed = differences.page(trial) if trial.state == "front" and not alone else None
    drawing = differences.drawing(trial) if trial.state == "front" else None
    return _Entry(trial, differences.changes(trial), costed, drawing)


def _dates(trials: Sequence[ReportTrial]) -> tuple[str, str] | None:
    """Return when the first and the last trial ended, to the second."""
    ended = sorted(t.ended.isoformat(" ", "seconds") for t in trials if t.ended and t.trained)
    return (ended[0], ended[-1]) if ended else None
