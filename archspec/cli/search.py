"""The verb search: from a space to the front of Dice against FLOPs, and is it one still?"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli import completion
from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import (
    MAX_COUNT,
    MAX_SEED,
    Address,
    Configuration,
    CpusPerJob,
    DataOrNone,
    Device,
    Engine,
    Fold,
    GpusPerJob,
    Jobs,
    PlansName,
    StagesFromDataset,
    Threads,
)
from archspec.cli.refusal import with_options
from archspec.cli.specs import Overrides, patch_or_exact
from archspec.spec.find import space_tree
from archspec.text import command_line
from blocks.base import MAX_WIDTH

if TYPE_CHECKING:
    from archspec.nnunet.dataset import PreprocessedDataset
    from search.launch import Searched
    from search.space.space import Space
    from search.study.task import SearchTask
    from search.trials.host import TrainingHost


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(search)


def _known_space(space: str) -> str:
    """Return the name or file if a space can be read there; nothing here imports torch."""
    space_tree(space)
    return space


def search(
    context: typer.Context,
    space: Annotated[
        str,
        typer.Argument(
            help="A bundled space (demo) or a YAML file with holes.",
            callback=_known_space,
            autocompletion=completion.spaces,
        ),
    ],
    data: DataOrNone = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_COUNT, help="Trials in all, resumed and stopped ones included."
        ),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_COUNT, help="Instead of --trials: as many as fit, timed here first."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run.")] = False,
    from_run: Annotated[
        Path | None,
        typer.Option("--from", help="An earlier run of the space, whose front is tried first."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="What proposes networks: tpe (the default), nsga2, nsga3, gp, random, or "
            "cost_aware, which is also called ours."
        ),
    ] = None,
    stopper: Annotated[
        str | None, typer.Option(help="What stops trials early: pash or none.")
    ] = None,
    max_gflops: Annotated[
        float | None, typer.Option(help="Train nothing above this per patch.")
    ] = None,
    max_params: Annotated[float | None, typer.Option(help="Train nothing above this.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Train nothing that needs more by estimate, e.g. 12GB.")
    ] = None,
    test_share: Annotated[
        float | None,
        typer.Option(help="Share of the cases that neither train nor choose, e.g. 0.2."),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON file, case to person: the test part has whole persons."),
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="Patch size in voxels instead of the dataset's: 96,96,96; exact refuses to pad.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WIDTH, help="Batch size instead of the space's."),
    ] = None,
    stages_from_dataset: StagesFromDataset = False,
    confirm_seeds: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="Trainings of each point of the front at the end; default 3 where test cases are "
            "held out (--test-share), else 0.",
        ),
    ] = None,
    control: Annotated[
        bool,
        typer.Option("--control", help="Search the space with conv and identity as only mixers."),
    ] = False,
    jobs: Jobs = 1,
    threads: Threads = 1,
    device: Device = "auto",
    engine: Engine = "local",
    address: Address = None,
    gpus_per_job: GpusPerJob = None,
    cpus_per_job: CpusPerJob = None,
    configuration: Configuration = "3d_fullres",
    plans: PlansName = "nnUNetPlans",
    fold: Fold = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of sampler and trainings.")
    ] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Keep the study on a server: postgresql://user@host/database, its password in "
            "~/.pgpass. Default: ARCHSPEC_STORAGE of the environment, else sqlite, the run folder.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show samples, their costs and the hours.")
    ] = False,
    seconds_per_step: Annotated[
        float | None,
        typer.Option(min=0, max=MAX_COUNT, help="For --dry-run, instead of timing a step."),
    ] = None,
) -> None:
    """Search a space for the front of validation Dice against FLOPs.

    Trials see one seed each. Where test cases are held out, the front is then trained again with
    new seeds and scored on them, as `archspec confirm` does at any time.

    Samplers are Optuna's, with its options in a space: sampler: {kind: nsga2, population_size: 20}.
    cost_aware is ours: it plans many networks and takes the one that promises most hypervolume per
    second. Holes inside members of choices are modelled by it and tpe, and drawn at random by
    nsga2, nsga3 and gp, which learn from trials that were trained to the end alone; nsga2 and nsga3
    breed from the 51st of those on. A resumed search may take another sampler: archspec list
    --fields search.sampler.
    """
    from archspec.nnunet.dataset import find_dataset
    from blocks.base import SpecError

    # what costs nothing to check goes first: validating a space imports torch
    if seconds_per_step is not None and not dry_run:
        raise SpecError("goes with --dry-run only", field="seconds_per_step")
    if trials is not None and hours is not None:
        raise SpecError("give one of `trials` and `hours`", field="search")
    many = trials if hours is None else hours
    needed = {"--data": data, "--trials": many, "--out": out}
    missing = ", ".join(name for name, value in needed.items() if value is None)
    if missing and not dry_run:
        raise SpecError(
            f"{missing} missing",
            field="search",
            suggestion="a search needs --data, --trials (or --hours) and --out",
        )
    if hours is not None and data is None:
        raise SpecError("`hours` needs `data`, on which steps are timed", field="search")
    dataset = None
    if data is not None:
        dataset = find_dataset(data, configuration=configuration, plans_name=plans)
    from archspec.cli.options import space_with_options
    from search.space.settings import GivenSettings

    given = GivenSettings(
        sampler=sampler,
        stopper=stopper,
        max_gflops=max_gflops,
        max_params=max_params,
        max_memory=max_memory,
        test_share=test_share,
        patch_size=patch_or_exact(patch),
        batch_size=batch,
        stages_from_dataset=stages_from_dataset or None,
    )
    loaded = space_with_options(space, overrides or (), given)
    if control:
        from search.space.control import control_space

        loaded = control_space(loaded)
    from search.launch import num_seeds
    from search.study.data import check_groups, fitted
    from search.study.task import SearchTask
    from search.study.warm import taken_from
    from search.trials.host import training_host

    host = training_host(
        device,
        jobs,
        engine=engine,
        address=address,
        gpus_per_job=gpus_per_job,
        cpus_per_job=cpus_per_job,
        threads=threads,
        fold=fold,
        seed=seed,
        plans=plans,
    )
    first = () if from_run is None else taken_from(from_run, loaded)
    if hours is not None:
        from search.launch import in_hours

        assert dataset is not None
        task = SearchTask(
            loaded, dataset, out or Path(), 0, host, first=first, groups=groups, storage=storage
        )
        task, plan = in_hours(
            task,
            hours,
            seeds=confirm_seeds,
            resume=resume and out is not None,
            seconds_per_step=seconds_per_step,
        )
        print(plan.text(), flush=True)
        if not dry_run:
            _show_end(task.folder, search_and_show(task, resume=resume, confirm_seeds=plan.seeds))
        return
    if dry_run:
        if groups is not None:
            if dataset is None:
                raise SpecError("`groups` needs `data`, whose cases it names", field="search")
            check_groups(*fitted(dataset, loaded), host, groups)
        page = _samples(loaded, dataset, trials, host, seconds_per_step)
        print(with_options(page, context))
        if first:
            print(f"Behind the anchors {len(first)} networks of {from_run} are tried (--from).")
        seeds = num_seeds(confirm_seeds, held_out=bool(loaded.settings.test_share))
        if seeds:
            print(
                f"Then each network of the front is trained {seeds} times more (--confirm-seeds)."
            )
        return
    assert dataset is not None and trials is not None and out is not None
    task = SearchTask(
        loaded, dataset, out, trials, host, first=first, groups=groups, storage=storage
    )
    _show_end(out, search_and_show(task, resume=resume, confirm_seeds=confirm_seeds))


def search_and_show(
    task: "SearchTask", *, resume: bool, confirm_seeds: int | None, rivals: bool = False
) -> "Searched":
    """Do what `search.run` does and show it; after a Ctrl-C say how to go on.

    With `rivals` what a verdict compares is trained again too.
    """
    from archspec.cli.display import SearchDisplay, TrainingsDisplay
    from search.launch import Watcher, run_task
    from search.study.record import kept_settings, kept_text

    out = task.folder
    kept = kept_settings(out, task.space) if resume else {}
    if kept:
        print(kept_text(kept))
    again = same_command("--resume")
    with stopped(lambda: f"; go on with {again}"), ExitStack() as shown:
        first, second = SearchDisplay(task.trials), TrainingsDisplay()
        shown.enter_context(first)
        looking: SearchDisplay | TrainingsDisplay = first

        def show_front(seeds: int) -> None:
            nonlocal looking
            shown.close()
            print(_again_text(out, seeds), flush=True)
            looking = shown.enter_context(second)

        host = replace(task.host, on_moves=lambda moves: looking.move(moves))
        watcher = Watcher(on_event=first.show, on_front=show_front, on_progress=second.show)
        return run_task(
            replace(task, host=host),
            resume=resume,
            confirm_seeds=confirm_seeds,
            rivals=rivals,
            watcher=watcher,
        )


def _again_text(out: Path, seeds: int) -> str:
    """Say what is trained again."""
    from search.report.write import front_rows
    from search.study.record import read_run

    record = read_run(out)
    assert record is not None, "the search wrote it"
    cases, points = len(record.test_cases or ()), len(front_rows(out))
    scored = f", scored once on {cases} test cases" if cases else ""
    return (
        f"the front again: {points} network{'s' * (points > 1)} x {seeds} new "
        f"seed{'s' * (seeds > 1)} = {points * seeds} trainings of {record.steps:,} steps{scored}"
    )


def _show_end(out: Path, found: "Searched") -> None:
    """Print what became of the front and what comes next; exit 1 where something is missing."""
    from archspec.cli.confirm import show_confirmed
    from search.launch import CONFIRM_SEEDS
    from search.report.write import front_rows, why_empty

    if found.confirmation is not None:
        show_confirmed(found.confirmation, out)
        if found.confirmation.failed:
            raise typer.Exit(1)
    elif points := len(front_rows(out)):
        print(
            f"one training per network so far; {command_line('archspec', 'confirm', out)} trains "
            f"the {points} of the front again with {CONFIRM_SEEDS} new seeds each"
        )
    else:
        print(f"{out}: {why_empty(out)}")
        raise typer.Exit(1)
    print(f"next: {command_line('archspec', 'report', out)}")


def _samples(
    space: "Space",
    dataset: "PreprocessedDataset | None",
    trials: int | None,
    host: "TrainingHost",
    seconds_per_step: float | None,
) -> str:
    """Return ten networks of the space at the dataset's sizes, or at the space's own."""
    from archspec.network.input_sizes import OF_SPEC
    from search.space.dry_run import dry_run
    from search.space.first import with_plans

    if dataset is not None:
        dataset = dataset.with_patch(space.settings.given_patch)
    found = dry_run(
        with_plans(space, dataset) if dataset else space,
        dataset.sizes if dataset else OF_SPEC,
        device=host.devices[0],
        seconds_per_step=seconds_per_step,
        seed=host.seed,
    )
    return found.text(trials or 40, len(host.devices))
