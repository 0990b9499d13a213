"""Verbs about searches that run or have run: status, report, best, control."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli import completion
from archspec.cli.specs import Json

Run = Annotated[
    Path,
    typer.Argument(
        help="A run folder, as `archspec search --out` makes it.",
        autocompletion=completion.run_folders,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(status)
    app.command()(report)
    app.command()(best)
    app.command()(control)


def status(run: Run, json_: Json = False) -> None:
    """Say how a search stands, running or not: its trials, the best so far, the time left."""
    from search.report.status import read_status

    found = read_status(run)
    print(json.dumps(found.to_json()) if json_ else found.text())


def report(
    run: Run,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            help="A finished nnU-Net training to draw beside the front: its fold, e.g. "
            "nnUNet_results/Dataset004_X/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0. May be "
            "repeated."
        ),
    ] = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="Show cases of the confirmed front with outlines of label and prediction.",
        ),
    ] = True,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write it again whenever a trial ends, until all have."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, write nothing.")] = False,
) -> None:
    """Write report.html, pareto.png and two tables into the run folder; print the front.

    Where anchors trained nnU-Net's planned network, whole and narrowed, that curve is the line to
    beat; --baseline adds what nnU-Net itself trained, by the summary of its validation.
    """
    from search.report.write import front_table, report_json, write_report

    if json_ and watch:
        raise typer.BadParameter("one of --json and --watch")
    if json_:
        print(json.dumps(report_json(run, baseline or ())))
        return
    if watch:
        files = _watched(run, baseline or (), images=images)
    else:
        files = write_report(run, baseline or (), images=images)
    print(front_table(run, baseline or ()))
    for file in files:
        print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")


def _watched(run: Path, baselines: Sequence[Path], *, images: bool) -> list[Path]:
    """Write the report until the search has ended, a line per time; Ctrl-C leaves the last one."""
    from archspec.cli.interrupts import stopped
    from search.report.status import Status
    from search.report.watch import watch_report

    def show(status: Status) -> None:
        written = "" if status.best is None else f"; wrote {run / 'report.html'}"
        print(f"{status.headline()}{written}", file=sys.stderr, flush=True)

    with stopped(lambda: "; the report stands as it was last written"):
        return watch_report(run, baselines, images=images, on_news=show)


def best(
    run: Run,
    out: Annotated[Path, typer.Option("-o", "--out", help="The YAML file to write.")],
    max_gflops: Annotated[
        float | None, typer.Option(min=0, max=1e12, help="Only networks up to this.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the spec with the best validation Dice (among those within the limit)."""
    from archspec.files import check_writable, write_text
    from archspec.spec.yaml_file import dump
    from blocks.errors import SpecError, printable
    from search.report.write import best_trial

    check_writable(out)
    if out.exists() and not force:
        raise SpecError("exists already", where=out, suggestion="give another -o, or --force")
    found = best_trial(run, max_gflops=max_gflops)
    origin = printable(f"trial {found.number} of {run}: {found.summary}")
    write_text(out, f"# {origin}\n{dump(found.spec.tree())}")
    print(f"wrote {out}: trial {found.number}, {found.summary}")


def control(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders of one space: searches, and searches with --control.",
            autocompletion=completion.run_folders,
        ),
    ],
    json_: Json = False,
) -> None:
    """Do mixers matter? Set searches beside their controls, one of each per seed at least.

    A control is a run of `archspec search --control`; which of the runs are is read from them.
    Mixers are said to matter only where the interval over runs lies above 0.
    """
    from search.retrain.control import compare_with_control, controls_among

    found = compare_with_control(*controls_among(runs))
    print(json.dumps(found.to_json()) if json_ else found.text())
