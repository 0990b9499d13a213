"""Search and train the front again: `search.run`, and what `archspec search` shows of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import TrialState

from archspec.nnunet.dataset import find_dataset
from blocks.base import Grid, SpecError
from search.retrain.confirm import confirm
from search.retrain.confirmation import Confirmation
from search.retrain.retrain import Progress
from search.space.control import control_space
from search.space.references import Reference
from search.space.settings import GivenSettings
from search.space.space import Space, load_space
from search.study.data import check_groups, fitted
from search.study.hours import FRESH, Again, Before, HoursPlan, measure_speed, plan_hours
from search.study.ledger import ended
from search.study.loop import Event
from search.study.protocol import Terms
from search.study.record import RECORD, read_run, with_kept_settings
from search.study.run import run as run_study
from search.study.storage import open_run
from search.study.task import SearchTask
from search.study.warm import taken_from
from search.trials.cases import Cases
from search.trials.host import training_host
from search.trials.own import Data, OwnCases, own_cases

CONFIRM_SEEDS = 3
"""Trainings of each point of the front at the end, where test cases are held out."""

_OF_MIXER = 2
"""Networks that a question about a mixer compares, which may both be beside the front."""


def run(
    space: str | Path | Space,
    *,
    data: int | str | None = None,
    cases: Cases | Callable[[], Cases] | None = None,
    trials: int | None = None,
    hours: float | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    from_run: str | Path | None = None,
    sampler: str | None = None,
    stopper: str | None = None,
    max_gflops: float | None = None,
    max_params: float | None = None,
    max_memory: str | None = None,
    test_share: float | None = None,
    groups: str | Path | None = None,
    patch_size: Grid | Literal["exact"] | None = None,
    batch_size: int | None = None,
    stages_from_dataset: bool = False,
    confirm_seeds: int | None = None,
    control: bool = False,
    jobs: int = 1,
    threads: int = 1,
    device: str = "auto",
    engine: str = "local",
    address: str | None = None,
    gpus_per_job: float | None = None,
    cpus_per_job: int | None = None,
    configuration: str = "3d_fullres",
    plans: str = "nnUNetPlans",
    fold: int = 0,
    seed: int = 0,
    storage: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> optuna.Study:
    """Search a space for the front of validation Dice against FLOPs; return the Optuna study.

    The parameters are the options of `archspec search`, `patch_size` and `batch_size` those of
    `--patch` and `--batch`; one of `trials` and `hours` is given. Its verbs go on with the folder
    `out`: `report`, `best`, `confirm`. `data` is the id or name of a dataset that nnU-Net
    preprocessed; in its place `cases` are your own, see `search.Cases`.
    Trials train in processes of their own, so a script calls this below
    `if __name__ == "__main__":`, as multiprocessing asks of it.

    Raises:
        SpecError: the space, the data or the folder is wrong; see `load_space`.
    """
    given = GivenSettings(
        sampler=sampler,
        stopper=stopper,
        max_gflops=max_gflops,
        max_params=max_params,
        max_memory=max_memory,
        test_share=test_share,
        patch_size=patch_size,
        batch_size=batch_size,
        stages_from_dataset=stages_from_dataset or None,
    )
    settings = [f"{path}={value}" for _, path, value in given.paths()]
    loaded = _loaded(space, (*overrides, *settings))
    if control:
        loaded = control_space(loaded)
    if cases is not None:
        others = {
            "data": data,
            "test_share": test_share,
            "groups": groups,
            "batch_size": batch_size,
        }
        _check_alone({**others, "fold": fold or None})
        dataset: Data = own_cases(cases)
    elif data is not None:
        dataset = find_dataset(data, configuration=configuration, plans_name=plans)
    else:
        raise SpecError("give `data` or `cases`", field="search")
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
    if (trials is None) == (hours is None):
        raise SpecError("give one of `trials` and `hours`", field="search")
    first = () if from_run is None else taken_from(Path(from_run), loaded)
    task = SearchTask(
        loaded,
        dataset,
        Path(out),
        trials or 0,
        host,
        first=first,
        groups=None if groups is None else Path(groups),
        storage=storage,
    )
    seeds = confirm_seeds
    if hours is not None:
        if isinstance(dataset, OwnCases):
            seeds = num_seeds(seeds, held_out=bool(dataset.test))
        task, found = in_hours(task, hours, seeds=seeds, resume=resume)
        seeds = found.seeds
    watcher = Watcher(on_event=on_event)
    return run_task(task, resume=resume, confirm_seeds=seeds, watcher=watcher).study


def in_hours(
    task: SearchTask,
    hours: float,
    *,
    seeds: int | None = None,
    rivals: bool = False,
    resume: bool = False,
    seconds_per_step: float | None = None,
) -> tuple[SearchTask, HoursPlan]:
    """Return the task with the trials and rungs that fit, and the plan; times a few networks.

    With `rivals` it leaves time to train the anchors of the dataset's plans again too.

    Raises:
        SpecError: as `measure_speed` and `plan_hours`, and where the run to resume is none.
    """
    before, space = FRESH, task.space
    if resume and read_run(task.folder) is not None:
        space = with_kept_settings(task.folder, space)
        before = Before(len(ended(open_run(task.folder)[0])), space.settings.rungs)
    dataset, space = fitted(task.dataset, space)
    check_groups(dataset, space, task.host, task.groups)
    speed = measure_speed(space, dataset, task.host, seconds_per_step=seconds_per_step)
    named = [Reference.of_anchor(one) for one in space.settings.anchors] if rivals else []
    also = sum(one is not None and one.kind == "plans" for one in named)
    if rivals and task.terms is not None and task.terms.mixer is not None:
        also = _OF_MIXER
    again = Again(seeds, also)
    found = plan_hours(space, task.host, hours, speed, again=again, before=before)
    own = task.space
    if before.rungs is None:
        settings = own.settings.model_copy(update={"rungs": found.rungs})
        own = replace(own, settings=settings)
    return replace(task, space=own, trials=found.trials, seconds=found.searching), found


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who is told what happens; by default nobody.

    `on_front` comes between the search and the trainings of its front, with the seeds of each.
    """

    on_event: Callable[[Event], None] = lambda event: None
    on_front: Callable[[int], None] = lambda seeds: None
    on_progress: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Searched:
    """A search that has ended; `confirmation` is None where its front was not trained again."""

    study: optuna.Study
    confirmation: Confirmation | None


def run_task(
    task: SearchTask,
    *,
    resume: bool = False,
    confirm_seeds: int | None = None,
    rivals: bool = False,
    watcher: Watcher = Watcher(),
) -> Searched:
    """Search, then train the front again with as many seeds as `num_seeds` says.

    With `rivals` that goes for what a verdict compares too. A new run keeps the usual terms of one
    where the task gives none.

    Raises:
        SpecError: as `search.study.run.run` and `confirm`.
    """
    if task.terms is None and not (task.folder / RECORD).is_file():
        task = replace(task, terms=Terms(seeds=confirm_seeds or CONFIRM_SEEDS))
    study = run_study(task, resume=resume, on_event=watcher.on_event)
    record = read_run(task.folder)
    assert record is not None, "the search wrote it"
    seeds = num_seeds(confirm_seeds, held_out=bool(record.test_cases))
    if not seeds or not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return Searched(study, None)
    watcher.on_front(seeds)
    own = task.dataset if isinstance(task.dataset, OwnCases) else None
    found = confirm(
        task.folder,
        seeds=seeds,
        rivals=rivals,
        host=task.host,
        cases=own,
        on_progress=watcher.on_progress,
    )
    return Searched(study, found)


def num_seeds(asked: int | None, *, held_out: bool) -> int:
    """Return the trainings of each point of the front: those asked for, else by default."""
    if asked is not None:
        return asked
    return CONFIRM_SEEDS if held_out else 0


def _check_alone(given: Mapping[str, object]) -> None:
    """Refuse what cases of one's own decide themselves."""
    for name, value in given.items():
        if value is not None:
            raise SpecError(
                f"`{name}` is not for `cases`, which decide it themselves", field="search"
            )


def _loaded(space: str | Path | Space, overrides: tuple[str, ...]) -> Space:
    if not isinstance(space, Space):
        return load_space(space, overrides=overrides)
    if overrides:
        raise SpecError(
            f"-s {overrides[0]}: the space is loaded already",
            suggestion="give overrides to load_space, or search.run the space's name or file",
        )
    return space
