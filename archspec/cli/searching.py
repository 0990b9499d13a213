"""Verbs about searches: search, report, best."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.specs import Overrides

if TYPE_CHECKING:
    from archspec.nnunet_dataset import PreprocessedDataset
    from search.space import Space

Run = Annotated[Path, typer.Argument(help="A run folder, as `archspec search --out` makes it.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(search)
    app.command()(report)
    app.command()(best)


def search(
    space: Annotated[str, typer.Argument(help="A bundled space (demo) or a YAML file with holes.")],
    data: Annotated[
        str | None, typer.Option(help="Dataset id or name, preprocessed by nnU-Net.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all, resumed and stopped ones included.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run.")] = False,
    stopper: Annotated[
        str | None, typer.Option(help="What stops trials early: pash, moasha or none.")
    ] = None,
    max_gflops: Annotated[
        float | None, typer.Option(help="Train nothing above this per patch.")
    ] = None,
    max_params: Annotated[float | None, typer.Option(help="Train nothing above this.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Train nothing that needs more by estimate, e.g. 12GB.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes; on CUDA one per GPU.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per worker.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    configuration: Annotated[str, typer.Option(help="nnU-Net configuration.")] = "3d_fullres",
    plans: Annotated[str, typer.Option(help="Plans the data were preprocessed with.")] = (
        "nnUNetPlans"
    ),
    fold: Annotated[int, typer.Option(min=0, help="Fold: which cases validate.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampler and trainings.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show samples, their costs and the hours.")
    ] = False,
    seconds_per_step: Annotated[
        float | None, typer.Option(min=0, help="For --dry-run, instead of timing a step.")
    ] = None,
) -> None:
    """Search a space for the front of validation Dice against FLOPs."""
    from archspec.cli.progress import SearchDisplay
    from archspec.nnunet_dataset import find_dataset
    from blocks.base import SpecError
    from search.space import load_space
    from search.study import run

    limits = {"gflops": max_gflops, "params": max_params, "memory": max_memory}
    given = [f"search.limits.{name}={value}" for name, value in limits.items() if value is not None]
    given += [] if stopper is None else [f"search.stopper={stopper}"]
    loaded = load_space(space, overrides=(*(overrides or ()), *given))
    dataset = None
    if data is not None:
        dataset = find_dataset(data, configuration=configuration, plans_name=plans)
    if dry_run:
        _show_samples(loaded, dataset, trials, _devices(device, jobs), seed, seconds_per_step)
        return
    if seconds_per_step is not None:
        raise SpecError("--seconds-per-step: goes with --dry-run only")
    if dataset is None or trials is None or out is None:
        needed = {"--data": data, "--trials": trials, "--out": out}
        missing = ", ".join(name for name, value in needed.items() if value is None)
        raise SpecError(f"search: {missing} missing; a search needs --data, --trials and --out")
    try:
        with SearchDisplay(trials) as display:
            run(
                loaded,
                dataset,
                folder=out,
                trials=trials,
                devices=_devices(device, jobs),
                threads=threads,
                fold=fold,
                seed=seed,
                resume=resume,
                on_event=display.show,
            )
    except KeyboardInterrupt:
        print(f"stopped; go on with the same command and --resume ({out})", file=sys.stderr)
        raise typer.Exit(130) from None
    print(f"next: archspec report {out}")


def _show_samples(
    space: "Space",
    dataset: "PreprocessedDataset | None",
    trials: int | None,
    devices: list[str],
    seed: int,
    seconds_per_step: float | None,
) -> None:
    """Print ten networks of the space at the dataset's sizes, or at the space's own."""
    from search.dry_run import dry_run

    found = dry_run(
        space,
        in_channels=dataset.num_channels if dataset else None,
        num_classes=dataset.num_classes if dataset else None,
        patch_size=dataset.patch_size if dataset else None,
        device=devices[0],
        seconds_per_step=seconds_per_step,
        seed=seed,
    )
    print(found.text(trials or 40, len(devices)))


def report(
    run: Run,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, write nothing.")] = False,
) -> None:
    """Write report.html, pareto.png and two tables into the run folder; print the front."""
    import json

    from search.report import front_table, report_json, write_report

    if json_:
        print(json.dumps(report_json(run)))
        return
    files = write_report(run)
    print(front_table(run))
    for file in files:
        print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")


def best(
    run: Run,
    out: Annotated[Path, typer.Option("-o", "--out", help="The YAML file to write.")],
    max_gflops: Annotated[float | None, typer.Option(help="Only networks up to this.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the spec with the best validation Dice (among those within the limit)."""
    from archspec.yaml_source import dump
    from blocks.base import SpecError
    from search.report import best_trial

    if out.exists() and not force:
        raise SpecError(f"{out}: exists already; give another -o, or --force")
    if not out.resolve().parent.is_dir():
        raise SpecError(f"{out}: the folder {out.resolve().parent} does not exist")
    found = best_trial(run, max_gflops=max_gflops)
    text = f"# trial {found.number} of {run}: {found.summary}\n{dump(found.spec.tree())}"
    out.write_text(text, encoding="utf-8")
    print(f"wrote {out}: trial {found.number}, {found.summary}")


def _devices(device: str, jobs: int) -> list[str]:
    """Return one device per worker; `cuda` and `auto` take one GPU each."""
    import torch

    from archspec.devices import device_named

    named = device_named(device)
    if named.type == "cuda" and named.index is None:
        return [f"cuda:{i}" for i in range(min(jobs, torch.cuda.device_count()))]
    return [str(named)] * jobs
