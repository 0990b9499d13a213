"""The verb verdict: one answer about a search, and the search that leads to it."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    Threads,
    space_with_options,
)
from archspec.cli.specs import Overrides
from archspec.text import command_line
from blocks.errors import SpecError

if TYPE_CHECKING:
    from search.space.space import Space
    from search.study.task import SearchTask

_TEST_SHARE = 0.2


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(verdict)


def verdict(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder, whose front is trained again.")
    ] = None,
    data: DataOrNone = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0, max=MAX_COUNT, help="How long to search and to train again."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make.")] = None,
    space: Annotated[
        str, typer.Option(help="A bundled space or a YAML file, with nnU-Net's plans as anchors.")
    ] = "full",
    overrides: Overrides = None,
    mixer: Annotated[
        str | None,
        typer.Option(help="Ask what networks with this mixer alone are worth over convolutions."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="The Dice difference that matters. Default: 0.01."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="New trainings of what is compared. Default: 3."),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="CSV or JSON file, case to person: statistics count persons, and a new run's test "
            "part has whole ones."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run cut off.")] = False,
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
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, write no page.")] = False,
) -> None:
    """Say in one answer whether to keep nnU-Net's network, or that these data cannot say.

    Of a RUN it reads what was trained, and writes verdict.md into it. With --data, --hours and
    --out it makes the run first: a search as long as fits, its front and nnU-Net's network by width
    trained again. Margin, metric, split and seeds stand in protocol.lock before the first training.
    """
    fixed = {"mixer": mixer, "margin": margin, "seeds": seeds, "resume": resume or None}
    for name, value in fixed.items():
        if run is not None and value is not None:
            raise SpecError(
                f"the run's protocol.lock decides; `{name}` is for making one", field="verdict"
            )
    asked = {"--data": data, "--hours": hours, "--out": out}
    given = [name for name, value in asked.items() if value is not None]
    if run is not None and given:
        raise SpecError(f"give a run, or {', '.join(given)} to make one", field="verdict")
    if run is None and len(given) < len(asked):
        missing = ", ".join(name for name in asked if name not in given)
        raise SpecError(
            f"{missing} missing",
            field="verdict",
            suggestion="give a run folder, or --data, --hours and --out to make one",
        )
    if run is None:
        assert data is not None and hours is not None and out is not None
        from archspec.nnunet.dataset import find_dataset

        dataset = find_dataset(data, configuration=configuration, plans_name=plans)
        loaded = _space(space, overrides or (), mixer)
        from search.study.protocol import Terms
        from search.study.task import SearchTask
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
        usual = Terms()
        terms = Terms(
            margin=usual.margin if margin is None else margin,
            seeds=usual.seeds if seeds is None else seeds,
            mixer=mixer,
        )
        with redirect_stdout(sys.stderr if json_ else sys.stdout):
            task = SearchTask(loaded, dataset, out, 0, host, terms=terms, groups=groups)
            _make(task, hours, resume=resume)
        run = out
    from search.verdict.judge import check_page, write_page
    from search.verdict.judge import verdict as judge

    if not json_:
        check_page(run)
    found = judge(run, groups=groups)
    if json_:
        print(json.dumps(found.to_json()))
        return
    print(found.text())
    print(f"wrote {write_page(run, found)}")
    if found.answer == "this spec":
        spec = run / "trials" / f"{found.compared[0].trial:04d}" / "spec.yaml"
        words = ("export", spec, "--dataset", found.protocol.dataset)
        print(f"next: {command_line('archspec', *words)}")


def _space(name: str, overrides: Sequence[str], mixer: str | None) -> "Space":
    """Return the space, with a test part, if it has the mixer that is asked about."""
    from archspec.spec.tree import walk
    from search.space.settings import GivenSettings

    loaded = space_with_options(name, overrides, GivenSettings())
    if not loaded.settings.test_share:
        loaded = space_with_options(name, overrides, GivenSettings(test_share=_TEST_SHARE))
    if mixer is not None and mixer not in [node for _, node in walk(loaded.source.tree)]:
        raise SpecError(f"{loaded.name} has no mixer {mixer!r}", field="mixer")
    return loaded


def _make(task: "SearchTask", hours: float, *, resume: bool) -> None:
    """Search as long as fits, then train the front and its rivals again."""
    from archspec.cli.search import search_and_show
    from search.launch import in_hours

    assert task.terms is not None
    seeds = task.terms.seeds
    planned, plan = in_hours(task, hours, seeds=seeds, rivals=True, resume=resume)
    print(plan.text(), flush=True)
    search_and_show(planned, resume=resume, confirm_seeds=seeds, rivals=True)
