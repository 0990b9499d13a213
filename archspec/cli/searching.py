"""Verbs about searches: search, report, best."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.specs import Overrides

Run = Annotated[Path, typer.Argument(help="A run folder, as `archspec search --out` makes it.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(search)
    app.command()(report)
    app.command()(best)


def search(
    space: Annotated[str, typer.Argument(help="A bundled space (demo) or a YAML file with holes.")],
    data: Annotated[str, typer.Option(help="Dataset id or name, preprocessed by nnU-Net.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, resumed ones included.")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes; on CUDA one per GPU.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per worker.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    configuration: Annotated[str, typer.Option(help="nnU-Net configuration.")] = "3d_fullres",
    plans: Annotated[str, typer.Option(help="Plans the data were preprocessed with.")] = (
        "nnUNetPlans"
    ),
    fold: Annotated[int, typer.Option(min=0, help="Fold: which cases validate.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampler and trainings.")] = 0,
) -> None:
    """Search a space for the front of validation Dice against FLOPs."""
    from archspec.cli.progress import SearchDisplay
    from archspec.nnunet_dataset import find_dataset
    from search.space import load_space
    from search.study import run

    dataset = find_dataset(data, configuration=configuration, plans_name=plans)
    loaded = load_space(space, overrides=tuple(overrides or ()))
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


def report(run: Run) -> None:
    """Write pareto.csv, pareto.png and report.html into the run folder; print the front."""
    from search.report import front_table, write_report

    files = write_report(run)
    print(front_table(run))
    for file in files:
        print(f"wrote {file}")


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
    """Return one device per worker."""
    import torch

    from blocks.base import SpecError

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise SpecError(
            f"--device {device}: not a device; give auto, cpu, cuda or cuda:1"
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"--device {device}: CUDA is not available here; give cpu")
    if device == "cuda":
        return [f"cuda:{i}" for i in range(min(jobs, torch.cuda.device_count()))]
    return [device] * jobs
