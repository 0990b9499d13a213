"""The verb phantom: synthetic datasets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.options import MAX_COUNT, MAX_SEED

if TYPE_CHECKING:
    from archspec.phantom.task import Task

_DEFAULT_CASES = 80


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(phantom)


def _list(wanted: bool) -> None:
    """Print the tasks and their levels, and stop."""
    if wanted:
        from archspec.phantom.tasks import table

        print(table())
        raise typer.Exit


def phantom(
    out: Annotated[Path, typer.Argument(help="The dataset's folder, e.g. raw/Dataset901_Reach")],
    task: Annotated[str, typer.Option(help="Which task; see --list.")] = "reach",
    level: Annotated[
        str | None, typer.Option(help="How hard: one value of the task's knob; see --list.")
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(
            max=MAX_COUNT,
            help=f"Training cases; {_DEFAULT_CASES} where the level does not say.",
        ),
    ] = None,
    test_cases: Annotated[
        int, typer.Option(max=MAX_COUNT, help="Test cases, in imagesTs and labelsTs.")
    ] = 8,
    distance: Annotated[
        int | None,
        typer.Option(
            max=MAX_COUNT,
            help="Reach only: voxels between landmark and twins, in a volume that grows with them.",
        ),
    ] = None,
    control: Annotated[
        str,
        typer.Option(
            help="erased: the image lacks the deciding evidence, so chance is the best; "
            "oracle: a second channel gives the answer."
        ),
    ] = "none",
    spacing: Annotated[
        str, typer.Option(help="Voxel size in mm, D,H,W; sizes in voxels do not change.")
    ] = "1,1,1",
    seed: Annotated[
        int, typer.Option(max=MAX_SEED, help="Seed; equal seeds give equal files.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
    show: Annotated[
        bool,
        typer.Option("--list", help="Show tasks and levels.", is_eager=True, callback=_list),
    ] = False,
) -> None:
    """Write a synthetic nnU-Net raw dataset that isolates one capability."""
    from dataclasses import replace

    from archspec.phantom.dataset import write_dataset
    from archspec.phantom.task import as_control
    from blocks.errors import SpecError, argument

    chosen = _task(task, level=level, distance=distance)
    chosen = replace(chosen, control=as_control(control), spacing=_spacing(spacing))
    if chosen.num_cases is not None and cases is not None:
        raise SpecError(
            f"level {level} of task {task} has {chosen.num_cases} cases",
            where=argument("cases", cases),
            suggestion="leave --cases out",
        )
    num_cases = chosen.num_cases or (_DEFAULT_CASES if cases is None else cases)
    written = write_dataset(
        out, chosen, num_cases=num_cases, num_test_cases=test_cases, seed=seed, force=force
    )
    which = task if level is None else f"{task} at level {level}"
    print(f"{written}: {num_cases} training and {test_cases} test cases of task {which}")


def _task(name: str, *, level: str | None, distance: int | None) -> "Task":
    """Return the task at its level, or reach at a distance of its own."""
    from archspec.phantom.reach import ReachTask
    from archspec.phantom.tasks import task_class
    from blocks.errors import SpecError, argument

    kind = task_class(name)
    if distance is not None:
        if kind is not ReachTask or level is not None:
            raise SpecError(
                "only for --task reach, without --level", where=argument("distance", distance)
            )
        return ReachTask(distance=distance)
    if level is None:
        return kind()
    return kind.at_level(level)


def _spacing(text: str) -> tuple[float, float, float]:
    from blocks.errors import SpecError, argument

    try:
        depth, height, width = (float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(
            "must be three sizes in mm, D,H,W",
            where=argument("spacing", text),
            suggestion="use e.g. 5,2,2",
        ) from None
    return depth, height, width
