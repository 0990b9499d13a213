"""Run or resume a search: an Optuna study under one driver, trials in worker processes.

The run folder holds `study.db` (Optuna, SQLite), which a server may have in its place,
`space.yaml`, `run.json` and, per trial, `trials/0007/{spec.yaml, metrics.jsonl, checkpoint.pt}`.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from sqlalchemy.exc import OperationalError

from archspec.costs.flops import CONVENTION
from archspec.files import check_folder, check_writable, make_folder, write_text
from archspec.spec.plugins import refuse_scripted
from archspec.spec.words import did_you_mean
from archspec.spec.yaml_file import dump
from blocks.errors import SpecError
from search.space.space import Space
from search.study.bridge import ServerStorage
from search.study.damage import has_study
from search.study.data import check, fitted, held_out, persons_of, scored_names
from search.study.drives import check_for_sqlite
from search.study.lock import ServerLock
from search.study.loop import Event, SearchLoop
from search.study.protocol import fix_protocol
from search.study.record import (
    RECORD,
    STOPPERS,
    RunRecord,
    earlier_stopper,
    read_run,
    with_kept_settings,
)
from search.study.sampling import Priced, check_packages, set_sampler
from search.study.server import IN_FOLDER, cause, server_of
from search.study.session import SESSIONS, note_session, read_sessions
from search.study.storage import (
    Heartbeat,
    mark_driver,
    open_server,
    open_storage,
    open_study,
    quiet,
    study_name,
)
from search.study.storage import open_run as open_run
from search.study.task import SearchTask
from search.trials.engine import MakeEngine
from search.trials.moving import moving
from search.trials.own import Data, OwnCases
from search.trials.pool import WorkerPool
from search.trials.ray_engine import engine_of
from search.trials.worker import WorkerSettings

SPACE = "space.yaml"


def run(
    task: SearchTask,
    *,
    resume: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    make_engine: MakeEngine | None = None,
) -> optuna.Study:
    """Train until the study has as many trials that ended as the task asks for, and return it.

    Trials that a killed search left behind are gone on with from their last rung. A resumed run
    keeps its settings where the space does not give them. By default worker processes of this
    machine train, or the host's cluster.

    Raises:
        SpecError: the data cannot be trained on, their plans lack a network that an anchor names,
            the sampler lacks a package, the folder exists and `resume` is off, another search uses
            it, its space, dataset or fold differ, or nothing can be written there.
    """
    folder, dataset, host = task.folder, task.dataset, task.host
    refuse_scripted("the processes that train", task.space.source.tree)
    check_folder(folder)
    before, space = read_run(folder), with_kept_settings(folder, task.space)
    check_packages(space.settings.sampler, space.source.where(("search", "sampler")))
    dataset, space = fitted(dataset, space)
    check(dataset, host.fold)
    _check_class(space, dataset)
    noted = None if before is None else before.storage
    server = server_of(task.storage, noted, new=before is None)
    task = replace(task, space=space, dataset=dataset)
    persons = None if before is None else before.persons
    if task.groups is not None:
        persons = persons_of(dataset, space, host.fold, task.groups)
    test = held_out(dataset, space.settings.test_share, host, persons)
    nnunet = None if isinstance(dataset, OwnCases) else dataset
    record = RunRecord(
        space=json.loads(json.dumps(space.source.tree)),
        settings=space.settings.recorded(),
        dataset=dataset.name,
        configuration="" if nnunet is None else nnunet.configuration,
        fold=host.fold,
        seed=host.seed,
        convention=CONVENTION,
        synthetic_task=nnunet.dataset_json.get("archspec", {}).get("task") if nnunet else None,
        earlier_stopper=earlier_stopper(before),
        test_cases=test or None,
        cases=dataset.to_json() if isinstance(dataset, OwnCases) else None,
        storage=None if server is None else server.to_json(),
        persons=persons,
        other={} if before is None else before.other,
    )
    _check_folder(folder, before, record, resume=resume)
    if host.cluster is not None and server is None and task.storage != IN_FOLDER:
        check_for_sqlite(folder)
    for name in (RECORD, SESSIONS, SPACE) if before is not None else ():
        check_writable(folder / name)  # all of them before the first is written
    read_sessions(folder)  # damage is told before anything is written
    try:
        with ExitStack() as held, quiet():
            lock = None if server is None else held.enter_context(ServerLock(server))
            make_folder(folder)
            if server is None or before is None:  # a server's lock is seen by every machine
                held.enter_context(FileLock(folder / "run.lock", timeout=0))
            if has_study(folder, server, writing=True):
                open_study(folder, server)  # damage is told before anything is written
            _write_record(folder, record)
            sampler = space.settings.recorded().get("sampler")
            asked = {
                "sampler": sampler,
                "trials": task.trials,
                "seconds": task.seconds,
                "protocol": fix_protocol(folder, task.terms, record) or None,
            }
            note_session(folder, dataset, host, asked)
            if server is None:
                storage = open_storage(folder, create=True)
            else:
                storage = open_server(server, lock)
            study = _open_study(folder, storage, task, record, study_name(server))
            search = SearchLoop(task, study, on_event)
            if isinstance(storage, ServerStorage) and lock is not None:
                storage.on_wait = search.note
                mark_driver(study, lock)
            search.recover(alone=server is not None)
            if search.num_left() == 0:
                total = task.trials
                told = f"all {total} trials have ended already"
                on_event(Event("note", -1, told, total, total))
            else:
                size = space.settings.batch_size
                settings = WorkerSettings(
                    dataset, host.fold, size, host.threads, grace=host.grace, held_out=test
                )
                jobs = list(host.devices)[: search.num_left()]
                make = make_engine or engine_of(host) or WorkerPool
                make = moving(make, host.on_moves, search.dice_of)
                with Heartbeat(storage, search.live_ids), make(settings, jobs) as engine:
                    search.drive(engine)
            return study
    except Timeout:
        raise SpecError("another search is running in this folder", where=folder) from None
    except (OSError, StorageInternalError, OperationalError) as error:
        raise SpecError(
            f"cannot be written: {cause(error)}",
            where=folder if server is None else str(server),
            suggestion="make room or give write access, then go on with `resume`",
        ) from error


def _check_class(space: Space, dataset: Data) -> None:
    """Refuse to seek the Dice of a class that the dataset does not have."""
    name, names = space.settings.objectives.of_class, scored_names(dataset)
    if name is not None and name not in names:
        raise SpecError(
            f"{name!r} is no class of {dataset.name}",
            where=space.source.where(("search", "objectives", 0, "dice", "class")),
            field="search.objectives.0.dice.class",
            allowed=", ".join(names),
            suggestion=did_you_mean(name, names),
        )


def _check_folder(
    folder: Path, before: RunRecord | None, record: RunRecord, *, resume: bool
) -> None:
    if before is None:
        if folder.exists() and any(folder.iterdir()):
            raise SpecError(
                "exists and is not a run", where=folder, suggestion="give another `folder`"
            )
        return
    if not resume:
        raise SpecError(
            "a run is there already",
            where=folder,
            suggestion="go on with `resume`, or another `folder`",
        )
    settings, stopper = before.all_settings, before.earlier_stopper
    now = record.all_settings
    for name in ("checkpoint_every", "sampler"):  # they change no result that stands
        settings[name] = now[name]
    if settings["stopper"] not in STOPPERS:  # gone; the rest go on by one asked for
        settings["stopper"] = now["stopper"]
        stopper = record.earlier_stopper
    old = {**before.to_json(), "settings": settings, "earlier_stopper": stopper}
    new = {"cases": None, **record.to_json(), "settings": now}
    new.pop("storage", None)  # the server may have another address now
    changed = [key for key, value in new.items() if old.get(key) != value]
    if "cases" in changed and before.cases and record.cases:
        changed.remove("cases")
        differ = {key for key, value in record.cases.items() if before.cases.get(key) != value}
        changed += [f"cases.{key}" for key in sorted(differ)]
    if changed:
        raise SpecError(
            f"cannot resume, {', '.join(changed)} differ from the run's",
            where=folder,
            suggestion="give what it was started with, or another `folder`",
        )


def _open_study(
    folder: Path,
    storage: optuna.storages.RDBStorage,
    task: SearchTask,
    record: RunRecord,
    name: str,
) -> optuna.Study:
    space, settings = task.space, task.space.settings
    write_text(folder / SPACE, dump({**space.source.tree, "search": settings.recorded()}))
    costs = settings.objectives.costs
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(costs)],
        load_if_exists=True,
    )
    study.set_metric_names(settings.objectives.metric_names)
    priced = Priced.of(space, task.dataset, task.host.devices[0])
    set_sampler(study, settings.sampler, record.seed, priced)
    return study


def _write_record(folder: Path, record: RunRecord) -> None:
    """Write run.json first of all, and whole: it is what makes the folder a run."""
    write_text(folder / RECORD, json.dumps(record.to_json(), indent=2))
