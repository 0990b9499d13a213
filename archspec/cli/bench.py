"""The verb bench: networks x datasets x folds x seeds, compared as a paper needs it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import (
    MAX_SEED,
    MAX_STEPS,
    Address,
    CpusPerJob,
    Device,
    Engine,
    GpusPerJob,
    Jobs,
    PlansName,
    Seeds,
    StagesFromDataset,
    Threads,
    UsualConfiguration,
    dataset_for,
)
from archspec.cli.specs import EXACT, Json, Overrides, known, patch_sizes
from blocks.base import MAX_WIDTH
from blocks.errors import SpecError

if TYPE_CHECKING:
    from archspec.nnunet.dataset import PreprocessedDataset

_DATASET = r"[0-9]{1,9}|Dataset[0-9]{3,9}_.+"
_STEPS = 1000


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(bench)


def _all_known(words: list[str]) -> list[str]:
    """Return the words if each is a dataset, plans in braces, or a spec; imports no torch."""
    for word in words:
        if not word.startswith("{") and not re.fullmatch(_DATASET, word):
            known(word)
    return words


def bench(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Bundled names, YAML files, or nnU-Net's own '{plans: nnUNetPlans, width: 8}'.",
            callback=_all_known,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(help="Datasets by id or name, preprocessed by nnU-Net: --data 4 27"),
    ],
    out: Annotated[Path, typer.Option(help="The folder to keep.")],
    folds: Annotated[str, typer.Option(help="Folds of nnU-Net's splits: 0-4 or 0,2")] = "0-4",
    seeds: Seeds = 3,
    overrides: Overrides = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_STEPS, help=f"Optimizer steps of a training. Default: {_STEPS}."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_WIDTH, help="Batch size. Default: 2; the dataset's with --stock."
        ),
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="Patch size in voxels instead of the datasets': 96,96,96; exact refuses to pad."
        ),
    ] = None,
    stages_from_dataset: StagesFromDataset = False,
    stock: Annotated[
        bool,
        typer.Option(
            "--stock",
            help="Export, and train by nnUNetv2_train: training.epochs x training.iterations.",
        ),
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(help="Name of the network to compare with. Default: the first.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON file, case to person: statistics count persons."),
    ] = None,
    score: Annotated[
        str, typer.Option(help="Compare the Dice of this class or group, or their mean.")
    ] = "mean",
    margin: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=1,
            help="Dice difference that would matter, 0.005: how many cases would show it?",
        ),
    ] = None,
    jobs: Jobs = 1,
    threads: Threads = 1,
    device: Device = "auto",
    engine: Engine = "local",
    address: Address = None,
    gpus_per_job: GpusPerJob = None,
    cpus_per_job: CpusPerJob = None,
    configuration: UsualConfiguration = None,
    plans: PlansName = "nnUNetPlans",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of trainings.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing bench.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew, and replace what a bench wrote.")
    ] = False,
    json_: Json = False,
) -> None:
    """Train networks on datasets, folds and seeds; compare them with intervals, ranks and tables.

    Writes rows.csv, cases.csv, bench.json, table.md, table.tex, methods.md and references.bib.
    """
    if resume and force:
        raise SpecError("--resume and --force exclude each other", field="bench")
    if stock and (steps is not None or jobs > 1):
        raise SpecError(
            f"--stock takes no {'--jobs' if steps is None else '--steps'}",
            field="bench",
            suggestion="it trains one at a time, as long as the recipe says: -s training.epochs=50",
        )
    words = [word for word in networks if not re.fullmatch(_DATASET, word)]
    if not words:
        raise SpecError("no network is given", field="bench")
    from search.bench.arena import check_folds, folds_of

    numbers = folds_of(folds)
    given = [part for one in data for part in one.split(",")]
    datasets = _datasets(
        words, [*given, *(w for w in networks if w not in words)], configuration, plans
    )
    for one in datasets:
        check_folds(numbers, one)
    from archspec.cli.display import TrainingsDisplay
    from archspec.nnunet.persons import EVERY_CASE, all_cases, read_persons
    from search.bench.arena import NetworkOptions, arena
    from search.bench.result import Bench
    from search.bench.run import bench as run_bench
    from search.bench.settings import BenchTask, Comparing
    from search.trials.host import training_host

    options = NetworkOptions(
        overrides=overrides or (), exact=patch == EXACT, fit_stages=stages_from_dataset
    )
    arenas = tuple(arena(words, one.with_patch(patch_sizes(patch)), options) for one in datasets)
    persons = EVERY_CASE
    if groups is not None:
        wanted = {one.name: all_cases(one, numbers) for one in datasets}
        persons = read_persons(groups, wanted)
    task = BenchTask(
        arenas=arenas,
        folder=out,
        folds=numbers,
        seeds=seeds,
        steps=steps or _STEPS,
        batch_size=batch,
        stock=stock,
        host=training_host(
            device,
            jobs,
            engine=engine,
            address=address,
            gpus_per_job=gpus_per_job,
            cpus_per_job=cpus_per_job,
            threads=threads,
            seed=seed,
            plans=plans,
        ),
        comparing=Comparing(baseline=baseline, score=score, margin=margin, persons=persons),
    )
    with stopped(lambda: f"; go on with {_to_resume()}"), TrainingsDisplay() as display:
        task = replace(task, host=replace(task.host, on_moves=display.move))
        found: Bench = run_bench(task, resume=resume, force=force, on_progress=display.show)
    print(json.dumps(found.to_json()) if json_ else f"{found.text()}\nwrote {out}")
    if found.failed:
        raise typer.Exit(1)


def _datasets(
    networks: list[str], data: list[str], configuration: str | None, plans: str
) -> "list[PreprocessedDataset]":
    """Return the datasets, each once, in the usual configuration for the first network."""
    from archspec.spec.load import load

    specs = [word for word in networks if not word.startswith("{")]
    ndim = len(load(specs[0]).patch_size) if specs else 3
    found: list[PreprocessedDataset] = []
    for one in data:
        dataset = dataset_for(ndim, one, configuration, plans)
        if dataset.name in [other.name for other in found]:
            raise SpecError(f"{dataset.name} is given twice", field="data")
        found.append(dataset)
    return found


def _to_resume() -> str:
    """Return the command that goes on; `--force` would begin anew."""
    return same_command("--resume").replace(" --force", "")
