"""The verb confirm: is the front of a search still one with other seeds, on other cases?"""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.searching import Run, _devices
from archspec.cli.specs import Json

if TYPE_CHECKING:
    from search.retraining import Progress


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(confirm)


def confirm(
    run: Run,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each point of the front.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes; on CUDA one per GPU.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per worker.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    plans: Annotated[str, typer.Option(help="Plans the data were preprocessed with.")] = (
        "nnUNetPlans"
    ),
    json_: Json = False,
) -> None:
    """Train the front again with new seeds, score the test cases once, say what exceeds noise.

    Goes on where an earlier call ended; writes confirmed.json into the run folder.
    """
    from search.confirmed_text import confirmed_text
    from search.confirming import RESULT
    from search.confirming import confirm as confirm_run

    try:
        found = confirm_run(
            run,
            seeds=seeds,
            devices=_devices(device, jobs),
            threads=threads,
            plans_name=plans,
            on_progress=show_progress,
        )
    except KeyboardInterrupt:
        print("stopped; go on with the same command", file=sys.stderr)
        raise typer.Exit(130) from None
    print(json.dumps(found) if json_ else f"{confirmed_text(found)}\nwrote {run / RESULT}")
    if found["failed"]:
        raise typer.Exit(1)


def show_progress(progress: "Progress") -> None:
    """Print what happened to a training, on standard error."""
    name = f"{progress.name}: " if progress.name else ""
    print(f"[{progress.done}/{progress.total}] {name}{progress.text}", file=sys.stderr, flush=True)
