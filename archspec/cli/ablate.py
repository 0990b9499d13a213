"""The verb ablate: what is each part of this network worth on this dataset?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import (
    MAX_SEED,
    Address,
    Batch,
    Configuration,
    CpusPerJob,
    DataOrNone,
    Device,
    Engine,
    Fold,
    GpusPerJob,
    Jobs,
    PlansName,
    Seeds,
    Steps,
    Threads,
)
from archspec.cli.specs import Json, Overrides, Spec, patch_sizes, planned_at


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(ablate)


def ablate(
    spec: Spec,
    data: DataOrNone = None,
    overrides: Overrides = None,
    only: Annotated[
        str, typer.Option(help="Only variants of this name, a shell pattern: 'stage 2 *'")
    ] = "*",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the variants and their costs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to keep; default: ablation-NAME-DATASET.")
    ] = None,
    steps: Steps = 1000,
    seeds: Seeds = 3,
    batch: Batch = 2,
    patch: Annotated[
        str | None, typer.Option(help="Patch size in voxels instead of the dataset's: 96,96,96")
    ] = None,
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
    test_share: Annotated[
        float, typer.Option(min=0, max=0.99, help="Compare on this share of the cases instead.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of trainings and test part.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Train a network without its parts, one at a time, and say what each part is worth.

    Goes on where an earlier call ended; writes ablation.json into the folder.
    """
    from archspec.cli.display import TrainingsDisplay
    from archspec.files import check_folder
    from archspec.network.input_sizes import OF_SPEC
    from archspec.nnunet.dataset import find_dataset
    from blocks.base import SpecError
    from search.retrain.variants import variants_json, variants_of, variants_text

    dataset = None
    if data is not None:
        dataset = find_dataset(data, configuration=configuration, plans_name=plans)
        dataset = dataset.with_patch(patch_sizes(patch))
    planned = planned_at(patch, spec, overrides, dataset.sizes if dataset else OF_SPEC)
    folder = out
    if dataset is not None and not dry_run:
        folder = out or Path(f"ablation-{planned.spec.name}-{dataset.name}")
        check_folder(folder)
    variants = variants_of(planned, only=only)
    if dry_run:
        print(json.dumps(variants_json(variants)) if json_ else variants_text(variants))
        if not json_:
            number = (1 + len(variants.others)) * seeds
            print(f"{number} trainings of {steps} steps with --seeds {seeds}")
        return
    if dataset is None or folder is None:
        raise SpecError("needs --data (all but with --dry-run)", field="ablate")
    from search.retrain.ablate import RESULT, Trainings
    from search.retrain.ablate import ablate as train_variants
    from search.trials.host import training_host

    with stopped(lambda: f"; go on with {same_command()}"), TrainingsDisplay() as display:
        found = train_variants(
            variants,
            dataset,
            folder=folder,
            trainings=Trainings(
                steps=steps,
                seeds=seeds,
                batch_size=batch,
                test_share=test_share,
                patch_size=patch_sizes(patch),
            ),
            host=training_host(
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
                on_moves=display.move,
            ),
            on_progress=display.show,
        )
    print(json.dumps(found.to_json()) if json_ else f"{found.text()}\nwrote {folder / RESULT}")
    if found.failed:
        raise typer.Exit(1)
