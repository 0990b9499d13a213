"""The verb phantom: synthetic datasets."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(phantom)


def phantom(
    out: Annotated[Path, typer.Argument(help="The dataset's folder, e.g. raw/Dataset901_Reach")],
    task: Annotated[str, typer.Option(help="Which task; one so far: reach")] = "reach",
    cases: Annotated[int, typer.Option(help="Training cases.")] = 80,
    test_cases: Annotated[int, typer.Option(help="Test cases, in imagesTs and labelsTs.")] = 8,
    distance: Annotated[
        int | None, typer.Option(help="Voxels between landmark and twins, along the long axis.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed; equal seeds give equal files.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
) -> None:
    """Write a synthetic nnU-Net raw dataset that isolates one capability."""
    from archspec.phantom.reach import ReachTask
    from archspec.phantom.writing import write_dataset
    from blocks.base import SpecError

    if task != "reach":
        raise SpecError(f"--task {task}: not a task (reach)")
    chosen = ReachTask() if distance is None else ReachTask(distance=distance)
    written = write_dataset(
        out, chosen, num_cases=cases, num_test_cases=test_cases, seed=seed, force=force
    )
    print(f"{written}: {cases} training and {test_cases} test cases of task {task}")
