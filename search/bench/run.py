"""Train what a bench asks for, compare it, and write what a paper needs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from archspec.files import check_folder, make_folder, write_text
from archspec.nnunet.check_data import check_data
from archspec.nnunet.persons import shared_persons
from archspec.scoring.labels import scored_labels
from blocks.errors import SpecError, argument
from search.bench.arena import Arena
from search.bench.compare import Found, compare
from search.bench.paper import bibtex, latex, markdown, methods
from search.bench.result import Bench
from search.bench.rows import Row, write_rows
from search.bench.settings import (
    METHODS,
    REFERENCES,
    RESULT,
    TABLE_MD,
    TABLE_TEX,
    BenchSettings,
    BenchTask,
    open_folder,
    table_of,
)
from search.bench.stock import check_stock, stock_rows, train_stock
from search.retrain.retrain import Progress, Retraining, read_trained, retrain
from search.trials.engine import MakeEngine
from search.trials.ray_engine import engine_of
from search.trials.worker import WorkerSettings

Show = Callable[[Progress], None]
_TRIAL_BATCH = 2


def bench(
    task: BenchTask,
    *,
    resume: bool = False,
    force: bool = False,
    on_progress: Show = lambda progress: None,
    make_engine: MakeEngine | None = None,
) -> Bench:
    """Train every network on every dataset and fold with every seed, and return what was found.

    Trainings go to the end; validation cases of the folds are compared, by which nothing is chosen
    here. With `resume` those of an earlier call stand, which was asked for the same; `force` begins
    anew, and also replaces plans of the names that stock trainings need. By default worker
    processes of this machine train.

    Raises:
        SpecError: the data cannot be trained on, or have no such class; the folder holds something
            else, another bench, or a bench without `resume`; nothing can be written.
    """
    task = _checked(task)
    check_folder(task.folder)
    open_folder(task.folder, BenchSettings.of(task), resume=resume, force=force)
    try:
        with FileLock(task.folder / "bench.lock", timeout=0):
            try:
                if task.stock:
                    failed = train_stock(task, force=force or resume, on_progress=on_progress)
                else:
                    failed = _train(task, on_progress, make_engine)
            finally:
                rows = _rows(task)
                write_rows(task.folder, rows, _persons(task))
            found = compare(task, Found(rows, failed), _leaks(task))
            _write(task.folder, found)
            return found
    except Timeout:
        raise SpecError("another bench is running in this folder", where=task.folder) from None


def _checked(task: BenchTask) -> BenchTask:
    """Return the task with the batch size that trials have by default.

    Raises:
        SpecError: see `bench`.
    """
    for arena in task.arenas:
        for fold in task.folds:
            check_data(arena.dataset, fold=fold)
        classes, groups = scored_labels(arena.dataset.dataset_json)
        known = ["mean", *classes, *(() if task.stock else groups)]
        if task.comparing.score not in known:
            raise SpecError(
                f"{arena.dataset.name} has no such class or group",
                where=argument("score", task.comparing.score),
                allowed=", ".join(known),
            )
    given, baseline = list(task.arenas[0].planned), task.comparing.baseline
    if baseline is not None and baseline not in given:
        raise SpecError(
            "none of the networks",
            where=argument("baseline", baseline),
            allowed=", ".join(given),
        )
    if task.stock:
        check_stock(task)
        return task
    return replace(task, batch_size=task.batch_size or _TRIAL_BATCH)


def _train(task: BenchTask, show: Show, make_engine: MakeEngine | None) -> dict[str, str]:
    """Train by trials, fold by fold, and return why trainings failed, by name."""
    failed: dict[str, str] = {}
    before = 0
    for arena in task.arenas:
        dataset = arena.dataset
        for fold in task.folds:
            jobs = [
                Retraining(label, planned.spec.tree(), seed)
                for seed in task.all_seeds
                for label, planned in arena.planned.items()
            ]
            place = f"{dataset.name} fold {fold}"
            assert task.batch_size is not None, "trials have one"
            outcome = retrain(
                jobs,
                table=table_of(task, dataset.name, fold),
                settings=WorkerSettings(
                    dataset, fold, task.batch_size, task.host.threads, grace=task.host.grace
                ),
                rung_steps=task.rung_steps,
                devices=task.host.devices,
                on_progress=_shown_at(place, before, task.num_trainings, show),
                on_moves=task.host.on_moves,
                make_engine=make_engine or engine_of(task.host),
            )
            failed |= {f"{place}: {name}": reason for name, reason in outcome.failed.items()}
            before += len(jobs)
    return failed


def _shown_at(place: str, before: int, total: int, show: Show) -> Show:
    """Return how progress at a fold is shown as progress of the bench."""

    def at_place(one: Progress) -> None:
        name = f"{place}: {one.name}" if one.name else place
        show(Progress(name, one.text, before + one.done, total))

    return at_place


def _rows(task: BenchTask) -> list[Row]:
    """Return the trainings that ended, in the order of datasets, networks, folds and seeds."""
    if task.stock:
        return stock_rows(task)
    found = {
        row.key: row
        for arena in task.arenas
        for fold in task.folds
        for row in _of(task, arena, fold)
    }
    wanted = [
        (arena.dataset.name, label, fold, seed)
        for arena in task.arenas
        for label in arena.planned
        for fold in task.folds
        for seed in task.all_seeds
    ]
    return [found[key] for key in wanted if key in found]


def _of(task: BenchTask, arena: Arena, fold: int) -> list[Row]:
    name = arena.dataset.name
    labels = {digest: label for label, digest in arena.hashes.items()}
    return [
        Row(
            labels[one.trial_hash],
            name,
            fold,
            one.seed,
            one.trial_hash,
            one.steps,
            one.seconds,
            one.validation,
        )
        for one in read_trained(table_of(task, name, fold))
        if one.trial_hash in labels
    ]


def _persons(task: BenchTask) -> Mapping[tuple[str, str], str]:
    named = task.comparing.persons.named
    return {(name, case): person for name, own in named.items() for case, person in own.items()}


def _leaks(task: BenchTask) -> list[str]:
    """Return a note for each dataset whose folds train on persons that they validate on."""
    notes = []
    for arena in task.arenas:
        dataset, persons = arena.dataset, task.comparing.persons
        shared = sum(shared_persons(persons, dataset, fold) for fold in task.folds)
        if shared:
            notes.append(
                f"{dataset.name}: folds train on persons that they validate on, {shared} times in "
                "all, so that its Dice flatters: write splits by person into splits_final.json"
            )
    return notes


def _write(folder: Path, found: Bench) -> None:
    make_folder(folder)
    write_text(folder / RESULT, json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")
    write_text(folder / TABLE_MD, markdown(found))
    write_text(folder / TABLE_TEX, latex(found))
    write_text(folder / METHODS, methods(found))
    write_text(folder / REFERENCES, bibtex(found))
