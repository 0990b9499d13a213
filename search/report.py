"""The result of a run: the Pareto front as a table, a picture and an offline page."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archspec.loading import load
from archspec.spec import ArchSpec
from blocks.base import SpecError
from search.opening import open_run
from search.report_page import render_page
from search.report_png import draw
from search.report_session import read_sessions
from search.report_summary import budget, hypervolume_history, reasons
from search.report_trials import ReportTrial, front_of, read_trials


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
    rows = [row for row in front_rows(folder) if row["gflops"] <= (max_gflops or math.inf)]
    if not rows:
        limit = f" of at most {max_gflops} GFLOPs" if max_gflops else ""
        raise SpecError(f"{folder}: no finished trial{limit}; see pareto.csv of archspec report")
    row = rows[-1]
    spec = load(folder / "trials" / f"{row['trial']:04d}" / "spec.yaml")
    return BestTrial(
        row["trial"], spec, f"validation Dice {row['dice']:.3f}, {row['gflops']:.3f} GFLOPs"
    )


def front_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the front, cheapest first: one row per trial, with Dice by class and group."""
    trials, _ = _open(folder)
    return _rows(front_of(trials))


def front_table(folder: Path) -> str:
    """Return the front as text."""
    trials, _ = _open(folder)
    front = front_of(trials)
    names = _score_names(front)
    lines = ["trial   GFLOPs     params   Dice  " + "  ".join(names)]
    for trial in front:
        scores = "  ".join(f"{(trial.scores or {})[name]:.3f}".rjust(len(name)) for name in names)
        lines.append(
            f"{trial.number:5}{trial.gflops:9.3f}{trial.params:11,}{trial.dice:7.3f}  {scores}"
        )
    return "\n".join(lines)


def report_json(folder: Path) -> dict[str, Any]:
    """Return plain data: all trials as in trials.csv, hypervolume, budget, reasons, sessions.

    Raises:
        SpecError: no run there, or no trial has finished.
    """
    trials, record = _finished(folder)
    settings = record.get("settings", {})
    history = hypervolume_history(trials, (settings.get("limits") or {}).get("gflops"))
    return {
        "run": record,
        "sessions": read_sessions(folder),
        "front": [trial.number for trial in front_of(trials)],
        "trials": _rows(trials),
        "hypervolume": {
            "reference": {"gflops": history.reference_gflops, "dice": 0.0},
            "points": [vars(point) for point in history.points],
        },
        "budget": [vars(spent) for spent in budget(trials)],
        "reasons": [
            {"state": state, "reason": reason, "trials": count}
            for state, reason, count in reasons(trials)
        ],
    }


def write_report(folder: Path) -> list[Path]:
    """Write pareto.csv, trials.csv, pareto.png and report.html; return their paths.

    Written again on every call: they are views of the study, not data.

    Raises:
        SpecError: no run there, or no trial has finished.
    """
    trials, record = _finished(folder)
    files = [folder / name for name in ("pareto.csv", "trials.csv", "pareto.png", "report.html")]
    page = render_page(record, trials, read_sessions(folder))
    files[0].write_text(_csv(_rows(front_of(trials))), encoding="utf-8")
    files[1].write_text(_csv(_rows(trials)), encoding="utf-8")
    draw(trials, files[2])
    files[3].write_text(page, encoding="utf-8")
    return files


def _open(folder: Path) -> tuple[tuple[ReportTrial, ...], dict[str, Any]]:
    study, record = open_run(folder)
    return read_trials(folder, study, record.get("settings", {})), record


def _finished(folder: Path) -> tuple[tuple[ReportTrial, ...], dict[str, Any]]:
    trials, record = _open(folder)
    if not any(trial.done for trial in trials):
        refused = f" ({len(trials)} were drawn, see study.db)" if trials else ""
        raise SpecError(f"{folder}: no trial has finished yet{refused}")
    return trials, record


def _score_names(trials: list[ReportTrial] | tuple[ReportTrial, ...]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.scores or {}))


def _rows(trials: list[ReportTrial] | tuple[ReportTrial, ...]) -> list[dict[str, Any]]:
    """Return one row per trial, all with the same columns; what is not known is empty."""
    classes = _score_names(trials)
    # a hole inside a member exists only in the trials that drew that member
    holes = list(dict.fromkeys(name for trial in trials for name in trial.choices))
    return [_row(trial, classes, holes) for trial in trials]


def _row(trial: ReportTrial, classes: list[str], holes: list[str]) -> dict[str, Any]:
    known = {
        "trial": trial.number,
        "dice": trial.dice,
        "gflops": trial.gflops,
        "gmac": None if trial.macs is None else trial.macs / 1e9,
        "scan_gflops": None if trial.scan_flops is None else trial.scan_flops / 1e9,
        "params": trial.params,
        "seconds": trial.seconds,
        "seconds_per_step": trial.seconds_per_step,
        "step": trial.step,
        "state": trial.state,
        "anchor": trial.anchor,
        "seed": trial.seed,
        "reason": trial.reason,
    }
    # a class may be called like a column, say params
    scores = {
        f"dice of {name}" if name in known else name: (trial.scores or {}).get(name)
        for name in classes
    }
    row = {**known, **scores, **{hole: trial.choices.get(hole) for hole in holes}}
    return {name: "" if value is None else value for name, value in row.items()}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
