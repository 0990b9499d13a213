"""The verb confirm: is the front of a search still one with other seeds, on other cases?"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import (
    Address,
    CpusPerJob,
    Device,
    Engine,
    GpusPerJob,
    Jobs,
    PlansName,
    Seeds,
    Threads,
)
from archspec.cli.report import Run
from archspec.cli.specs import Json

if TYPE_CHECKING:
    from search.retrain.confirmation import Confirmation


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(confirm)


def confirm(
    run: Run,
    seeds: Seeds = 3,
    rivals: Annotated[
        bool,
        typer.Option(
            "--rivals", help="Also what archspec verdict compares: nnU-Net's networks, by width."
        ),
    ] = False,
    jobs: Jobs = 1,
    threads: Threads = 1,
    device: Device = "auto",
    engine: Engine = "local",
    address: Address = None,
    gpus_per_job: GpusPerJob = None,
    cpus_per_job: CpusPerJob = None,
    plans: PlansName = "nnUNetPlans",
    json_: Json = False,
) -> None:
    """Train the front again with new seeds, score the test cases once, say what exceeds noise.

    Goes on where an earlier call ended; writes confirmed.json into the run folder.
    """
    from archspec.cli.display import TrainingsDisplay
    from search.retrain.confirm import confirm as confirm_run
    from search.trials.host import training_host

    host = training_host(
        device,
        jobs,
        engine=engine,
        address=address,
        gpus_per_job=gpus_per_job,
        cpus_per_job=cpus_per_job,
        threads=threads,
        plans=plans,
    )
    with stopped(lambda: f"; go on with {same_command()}"), TrainingsDisplay() as display:
        host = replace(host, on_moves=display.move)
        found = confirm_run(run, seeds=seeds, rivals=rivals, host=host, on_progress=display.show)
    if json_:
        print(json.dumps(found.to_json()))
    else:
        show_confirmed(found, run)
    if found.failed:
        raise typer.Exit(1)


def show_confirmed(found: "Confirmation", run: Path) -> None:
    """Print the table of the front trained again, and where its figures are."""
    from search.retrain.confirmation import RESULT

    print(f"{found.text()}\nwrote {run / RESULT}")
