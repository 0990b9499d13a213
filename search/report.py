"""The result of a run: the Pareto front as a table, a picture and an offline page."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from archspec.loading import load
from archspec.spec import ArchSpec
from blocks.base import SpecError
from search.front import pareto_front
from search.ledger import is_stopped, last_rung
from search.study import open_run


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
    rows = _rows(folder)
    front = pareto_front([(row["gflops"], row["dice"]) for row in rows])
    return [rows[index] for index in front]


def front_table(folder: Path) -> str:
    """Return the front as text."""
    rows = front_rows(folder)
    study, _ = open_run(folder)
    scores_of = {trial.number: trial.user_attrs.get("scores", {}) for trial in study.trials}
    names = [key for key in scores_of[rows[0]["trial"]] if key != "mean"] if rows else []
    lines = ["trial   GFLOPs     params   Dice  " + "  ".join(names)]
    for row in rows:
        scores = "  ".join(f"{row[name]:.3f}".rjust(len(name)) for name in names)
        lines.append(
            f"{row['trial']:5}{row['gflops']:9.3f}{row['params']:11,}{row['dice']:7.3f}  {scores}"
        )
    return "\n".join(lines)


def write_report(folder: Path) -> list[Path]:
    """Write pareto.csv, trials.csv, pareto.png and report.html; return their paths.

    Written again on every call: they are views of the study, not data.

    Raises:
        SpecError: no run there, or no trial has finished.
    """
    rows, front = _rows(folder), front_rows(folder)
    if not rows:
        raise SpecError(f"{folder}: no trial has finished yet")
    files = [folder / name for name in ("pareto.csv", "trials.csv", "pareto.png", "report.html")]
    files[0].write_text(_csv(front), encoding="utf-8")
    files[1].write_text(_csv(rows), encoding="utf-8")
    svg = _draw(rows, front, files[2])
    files[3].write_text(_page(folder, rows, front, svg), encoding="utf-8")
    return files


def _rows(folder: Path) -> list[dict[str, Any]]:
    study, _ = open_run(folder)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # a hole inside a member exists only in the trials that drew that member
    holes = list(dict.fromkeys(name for trial in trials for name in trial.params))
    return [
        {**_row(trial), **{hole: trial.params.get(hole, "") for hole in holes}} for trial in trials
    ]


def _row(trial: FrozenTrial) -> dict[str, Any]:
    known = trial.user_attrs
    scores = {name: score for name, score in known["scores"].items() if name != "mean"}
    return {
        "trial": trial.number,
        "dice": trial.values[0],
        "gflops": known["flops"] / 1e9,
        "gmac": known["macs"] / 1e9,
        "scan_gflops": known["scan_flops"] / 1e9,
        "params": known["params"],
        "seconds": known["seconds"],
        **scores,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _draw(rows: list[dict[str, Any]], front: list[dict[str, Any]], png: Path) -> str:
    """Draw the trials and the front; write the PNG and return the same figure as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(
        [row["gflops"] for row in rows],
        [row["dice"] for row in rows],
        color="0.65",
        label="trials",
    )
    axes.plot(
        [row["gflops"] for row in front],
        [row["dice"] for row in front],
        "o-",
        color="tab:blue",
        drawstyle="steps-post",
        label="Pareto front (trial numbers)",
    )
    for row in front:
        axes.annotate(
            str(row["trial"]),
            (row["gflops"], row["dice"]),
            xytext=(4, -12),
            textcoords="offset points",
        )
    axes.set_xscale("log")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:.2g}")
    axes.set_xlabel("GFLOPs per patch (convention v1: multiply-add = 2, scan 9BLDN)")
    axes.set_ylabel("validation Dice, mean of classes")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(png, dpi=150)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    text = svg.getvalue()
    return text[text.index("<svg") :]


def _page(folder: Path, rows: list[dict[str, Any]], front: list[dict[str, Any]], svg: str) -> str:
    from jinja2 import Environment, PackageLoader

    study, record = open_run(folder)
    others = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.COMPLETE]
    environment = Environment(loader=PackageLoader("search", "."), autoescape=True)
    return environment.get_template("report.html").render(
        record=record,
        names=list(rows[0]),
        front=front,
        rows=rows,
        svg=svg,
        specs={
            row["trial"]: (folder / "trials" / f"{row['trial']:04d}" / "spec.yaml").read_text(
                encoding="utf-8"
            )
            for row in front
        },
        others=[
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "why": _why(trial),
            }
            for trial in others
        ],
    )


def _why(trial: FrozenTrial) -> str:
    """Return why the trial has no result."""
    known = trial.user_attrs
    if is_stopped(trial):
        rung = last_rung(trial)
        return f"stopped at step {rung['step']} with Dice {rung['smoothed']:.3f}"
    return str(
        known.get("reason")
        or known.get("rejected")
        or known.get("lost")
        or "cut off; trained on under another number"
    )
