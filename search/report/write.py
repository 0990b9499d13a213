"""The result of a run: the Pareto front as a table, a picture and an offline page."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archspec.files import check_writable, write_text
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError
from search.report.baseline import read_baselines
from search.report.confirmed import read_confirmed
from search.report.curve import Standing, width_curves
from search.report.gallery import read_gallery
from search.report.page import render_page
from search.report.png import draw
from search.report.summary import budget, hypervolume_history, reasons
from search.report.trials import ReportTrial, TrialCosts, front_of, read_trials
from search.space.objectives import COSTS, Objectives
from search.study.record import RunRecord
from search.study.session import read_sessions
from search.study.storage import open_run

STALE = "confirmed.json is of another front than this one; archspec confirm trains what is missing"


@dataclass(frozen=True)
class BestTrial:
    """A trial chosen from the front."""

    number: int
    spec: ArchSpec
    summary: str


def best_trial(folder: Path, *, max_gflops: float | None = None) -> BestTrial:
    """Return the trial with the highest validation Dice within the limit.

    Raises:
        SpecError: no run, or no finished trial within the limit.
    """
    trials, record = _open(folder)
    front = front_of(trials)
    if not front:
        raise SpecError(_why_empty(trials), where=folder)
    kept = [one for one in front if max_gflops is None or (one.gflops or 0.0) <= max_gflops]
    if not kept:
        cheapest = min(one.gflops or 0.0 for one in front)
        raise SpecError(
            f"no finished trial of at most {max_gflops:g} GFLOPs",
            where=folder,
            suggestion=f"the cheapest of the front has {cheapest:.3g}",
        )
    best = max(kept, key=lambda one: one.dice or 0.0)
    spec = load(folder / "trials" / f"{best.number:04d}" / "spec.yaml")
    costs = [f"{best.gflops:.3f} GFLOPs"]
    for name in record.objectives.costs:
        if name != "flops":
            costs.append(f"{best.cost(name):.4g} {COSTS[name].unit}")
    label = record.objectives.dice_label
    return BestTrial(best.number, spec, f"validation {label} {best.dice:.3f}, {', '.join(costs)}")


def front_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the front, cheapest first: one row per trial, with Dice by class and group."""
    trials, record = _open(folder)
    return _rows(front_of(trials), record.objectives)


def why_empty(folder: Path) -> str:
    """Say that no trial has finished, and what became of those that were drawn."""
    return _why_empty(_open(folder)[0])


def _why_empty(trials: Sequence[ReportTrial]) -> str:
    """Return the states with how many trials each, and the commonest reason of each."""
    commonest: dict[str, str] = {}
    for state, reason, _ in reasons(trials):
        commonest.setdefault(state, reason)
    told = [
        f"{spent.count} {spent.state}"
        + (f" ({commonest[spent.state]})" if spent.state in commonest else "")
        for spent in budget(trials)
    ]
    return "no trial has finished yet" + (f": {', '.join(told)}" if told else "")


def front_table(folder: Path, baselines: Sequence[Path] = ()) -> str:
    """Return the front as text, and below it how it stands to what nnU-Net planned and trained.

    And what training it again showed, where that is known. `baselines` as in `write_report`.
    """
    trials, record = _open(folder)
    front = front_of(trials)
    names, objectives = _score_names(front), record.objectives
    others = [(name, COSTS[name].head.rjust(9)) for name in objectives.other_costs]
    head = "".join(unit for _, unit in others)
    lines = [f"trial   GFLOPs     params{head}   Dice  " + "  ".join(names)]
    for trial in front:
        scores = "  ".join(f"{trial.scores[name]:.3f}".rjust(len(name)) for name in names)
        costs = f"{trial.gflops:9.3f}{trial.costs.params:11,}"
        costs += "".join(f"{trial.cost(name):9.4g}" for name, _ in others)
        lines.append(f"{trial.number:5}{costs}{trial.dice:7.3f}  {scores}")
    if not objectives.is_mean:
        lines.append(f"Dice: {objectives.dice_label}")
    if len(objectives.costs) > 1:
        sought = ", ".join((objectives.dice_label, *objectives.costs))
        lines.append(f"front: no other network is as good in all of {sought}")
    told = [Standing.of(curve, trials).text() for curve in width_curves(trials)]
    told += [one.text() for one in read_baselines(baselines, record, read_sessions(folder))]
    lines += ["", *told] if told else []
    confirmed = read_confirmed(folder, front)
    if confirmed is not None:
        lines += ["", confirmed.found.text() if confirmed.current else STALE]
    return "\n".join(lines)


def report_json(folder: Path, baselines: Sequence[Path] = ()) -> dict[str, Any]:
    """Return plain data: all trials as in trials.csv, hypervolume, budget, reasons, sessions.

    `confirmed` is what confirmed.json holds, or null; its `current` says that it is of this front.
    `curves` are nnU-Net's planned networks by width, and `baselines` as in `write_report`.

    Raises:
        SpecError: no run there, no trial has finished, or a baseline cannot be read.
    """
    trials, record = _finished(folder)
    front, sessions = front_of(trials), read_sessions(folder)
    again = read_confirmed(folder, front)
    history = hypervolume_history(trials, record.max_gflops)
    return {
        "run": record.to_json(),
        "sessions": sessions,
        "front": [trial.number for trial in front],
        "confirmed": None if again is None else {"current": again.current, **again.found.to_json()},
        "trials": _rows(trials, record.objectives),
        "hypervolume": {
            "reference": {"gflops": history.reference_gflops, "dice": 0.0},
            "points": [vars(point) for point in history.points],
        },
        "budget": [vars(spent) for spent in budget(trials)],
        "reasons": [
            {"state": state, "reason": reason, "trials": count}
            for state, reason, count in reasons(trials)
        ],
        "curves": [Standing.of(curve, trials).to_json() for curve in width_curves(trials)],
        "baselines": [one.to_json() for one in read_baselines(baselines, record, sessions)],
    }


def write_report(
    folder: Path, baselines: Sequence[Path] = (), *, images: bool = True
) -> list[Path]:
    """Write pareto.csv, trials.csv, pareto.png and report.html; return their paths.

    Written again on every call: they are views of the study, not data. `baselines` are finished
    trainings of nnU-Net to draw beside the front, each by its fold's folder (or the validation
    folder, or `summary.json` in it). `images` puts pictures of cases into the page, which the
    confirmation of the front kept.

    Raises:
        SpecError: no run there, no trial has finished, or a baseline cannot be read.
    """
    trials, record = _finished(folder)
    sessions = read_sessions(folder)
    beside = read_baselines(baselines, record, sessions)
    files = [folder / name for name in ("pareto.csv", "trials.csv", "pareto.png", "report.html")]
    for file in files:
        check_writable(file)
    confirmed = read_confirmed(folder, front_of(trials))
    gallery = None
    if confirmed is not None and confirmed.current:
        own = record.cases is not None
        gallery = read_gallery(folder, confirmed, trials, own_cases=own, images=images)
    page = render_page(record, trials, sessions, confirmed, beside, gallery)
    write_text(files[0], _csv(_rows(front_of(trials), record.objectives)))
    write_text(files[1], _csv(_rows(trials, record.objectives)))
    curves = [curve for curve in width_curves(trials) if curve.points]
    draw(trials, files[2], confirmed, curves, beside, record.objectives)
    write_text(files[3], page)
    return files


def _open(folder: Path) -> tuple[tuple[ReportTrial, ...], RunRecord]:
    study, record = open_run(folder)
    return read_trials(folder, study, record), record


def _finished(folder: Path) -> tuple[tuple[ReportTrial, ...], RunRecord]:
    trials, record = _open(folder)
    if not any(trial.done for trial in trials):
        raise SpecError(_why_empty(trials), where=folder)
    return trials, record


def _score_names(trials: Sequence[ReportTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.scores))


def _rows(trials: Sequence[ReportTrial], objectives: Objectives) -> list[dict[str, Any]]:
    """Return one row per trial, all with the same columns; what is not known is empty."""
    classes = _score_names(trials)
    # a hole inside a member exists only in the trials that drew that member
    holes = list(dict.fromkeys(name for trial in trials for name in trial.choices))
    rows = [_row(trial, classes, holes, objectives.other_costs) for trial in trials]
    if any(trial.machine for trial in trials):
        rows = [{**row, "machine": trial.machine} for row, trial in zip(rows, trials, strict=True)]
    return rows


def _row(
    trial: ReportTrial, classes: list[str], holes: list[str], others: Sequence[str]
) -> dict[str, Any]:
    costs = trial.costs
    known = {
        "trial": trial.number,
        "dice": trial.dice,
        "gflops": trial.gflops,
        "gmac": None if costs.macs is None else costs.macs / 1e9,
        "scan_gflops": None if costs.scan_flops is None else costs.scan_flops / 1e9,
        "params": costs.params,
        **{COSTS[name].column: trial.cost(name) for name in others},
        **(_times(costs) if "latency" in others else {}),
        "seconds": trial.seconds,
        "seconds_per_step": trial.seconds_per_step,
        "step": trial.step,
        "state": trial.state,
        "anchor": trial.anchor,
        "network": trial.network,
        "seed": trial.seed,
        "reason": trial.reason,
    }
    # a class may be called like a column, say params
    scores = {
        f"dice of {name}" if name in known else name: trial.scores.get(name) for name in classes
    }
    row = {**known, **scores, **{hole: trial.choices.get(hole) for hole in holes}}
    return {name: "" if value is None else value for name, value in row.items()}


def _times(costs: TrialCosts) -> dict[str, float | None]:
    both = {"latency_ms": costs.latency, "calibration_ms": costs.calibration}
    return {name: None if value is None else 1e3 * value for name, value in both.items()}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
