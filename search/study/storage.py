"""The study of a run folder: its storage, how others open it, and what Optuna keeps to itself."""

import contextlib
import threading
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from blocks.errors import SpecError, reason
from search.study.bridge import ServerStorage
from search.study.damage import DATABASE, STUDY, check_trials, has_study, refuse_database
from search.study.lock import DRIVER, ServerLock
from search.study.record import RunRecord, read_run
from search.study.server import Server, cause, server_of

_TIMEOUT = 60
"""Seconds to wait for another process that is writing."""
INTERVAL = 30
"""Seconds between two signs of life."""
GRACE = 120
"""Seconds without one after which a driver is taken for dead."""


def open_run(folder: Path) -> tuple[optuna.Study, RunRecord]:
    """Return the study and the record of an existing run; safe while its search starts or runs.

    Raises:
        SpecError: the folder holds no run, one whose study is not there yet, or one that is damaged
            or held by another process.
    """
    record = read_run(folder)
    if record is None:
        raise SpecError(
            "not a run folder", where=folder, suggestion="archspec search --out makes one"
        )
    server = server_of(None, record.storage, new=False)
    if not has_study(folder, server):
        raise SpecError(
            "nothing to read yet, its search has just started",
            where=folder,
            suggestion="if it was cut off, archspec search --resume goes on",
        )
    return open_study(folder, server), record


def open_study(folder: Path, server: Server | None = None) -> optuna.Study:
    """Return the study that the folder has, or the server for it.

    Raises:
        SpecError: it is damaged, or of another Optuna.
    """
    storage = open_storage(folder, create=False) if server is None else open_server(server)
    try:
        study = optuna.load_study(study_name=study_name(server), storage=storage)
    except Exception as error:  # Optuna has no one error for values that it never wrote
        refuse_database(folder, f"damaged: {cause(error)}", server)
    check_trials(folder, study, server)
    return study


def study_name(server: Server | None) -> str:
    """Return the name of a run's study where it is."""
    return STUDY if server is None else server.study


def open_server(server: Server, lock: ServerLock | None = None) -> RDBStorage:
    """Return the storage on the server; with the lock of its driver, who alone creates tables.

    Raises:
        SpecError: it cannot be used, or is of another Optuna.
    """
    known: dict[str, Any] = {"heartbeat_interval": INTERVAL, "grace_period": GRACE}
    try:
        with quiet():
            if lock is not None:
                return ServerStorage(server, lock, **known)
            return RDBStorage(
                server.template,
                engine_kwargs=server.engine_options,
                skip_table_creation=True,
                **known,
            )
    except RuntimeError as error:  # the tables of another Optuna; the text says what to run
        told = reason(error).replace("$STORAGE_URL", server.template)
        raise SpecError(f"{told} Keep a copy first.", where=str(server)) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        raise server.refusal(error) from None


def mark_driver(study: optuna.Study, lock: ServerLock) -> None:
    """Note in the study who drives it: whoever drove it before, and slept, writes no more."""
    study._storage.set_study_user_attr(study._study_id, DRIVER, lock.mark)
    lock.marked = True


def last_sign(study: optuna.Study) -> float | None:
    """Return the seconds since the last heartbeat on a server; None where there was none."""
    age = text(
        "SELECT EXTRACT(EPOCH FROM LOCALTIMESTAMP - max(heartbeat)) FROM trial_heartbeats "
        "JOIN trials USING (trial_id) WHERE study_id = :study"
    )
    with _backend(study).engine.connect() as connection:
        found = connection.execute(age, {"study": study._study_id}).scalar()
    return None if found is None else float(found)


def _backend(study: optuna.Study) -> RDBStorage:
    backend = getattr(study._storage, "_backend", study._storage)
    assert isinstance(backend, RDBStorage)
    return backend


def open_storage(folder: Path, *, create: bool) -> optuna.storages.RDBStorage:
    """Return the storage of the folder; only the search itself may create its tables.

    `optuna storage upgrade` brings one of an older Optuna up to date.
    """
    url = _url(folder / DATABASE)
    try:
        with quiet():
            return optuna.storages.RDBStorage(
                url,
                # two threads write: the loop, and the heartbeat
                engine_kwargs={"connect_args": {"timeout": _TIMEOUT}},
                heartbeat_interval=INTERVAL,
                grace_period=GRACE,
                skip_table_creation=not create,
            )
    except RuntimeError as error:  # the tables of another Optuna; the text says what to run
        told = reason(error).replace("$STORAGE_URL", url)
        raise SpecError(f"{told} Keep a copy first.", where=folder / DATABASE) from None
    except (OperationalError, StorageInternalError):
        raise  # cannot be written, as the caller tells
    except Exception as error:  # Optuna has no one error for values that it never wrote
        refuse_database(folder, f"damaged: {reason(error)}")


def _url(file: Path) -> str:
    """Return what Optuna takes: `?` ends a path there, and braces are filled in."""
    address = URL.create("sqlite", database=str(file.resolve()))
    return address.render_as_string().replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from saying that ask and tell give no heartbeat (ours do) or are experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


def trial_id(trial: Trial | FrozenTrial) -> int:
    """Return Optuna's id of a trial, which storages know it by; its number counts in its study."""
    return trial._trial_id


def stored_trial(study: optuna.Study, trial: Trial) -> FrozenTrial:
    """Return the trial as it is stored, without reading the others."""
    return study._storage.get_trial(trial_id(trial))


def set_attribute(study: optuna.Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Set a user attribute of a trial that this process did not ask for."""
    study._storage.set_trial_user_attr(trial_id(trial), name, value)


def first_heartbeat(study: optuna.Study, trial: Trial) -> None:
    """Record a trial's first sign of life: Optuna never takes one without any for stale.

    Nothing where the storage keeps none.
    """
    if isinstance(study._storage, BaseHeartbeat):
        study._storage.record_heartbeat(trial_id(trial))


def queued_params(trial: FrozenTrial) -> dict[str, Any] | None:
    """Return the parameters that the trial was queued with; None where it was drawn."""
    params: dict[str, Any] | None = trial.system_attrs.get("fixed_params")
    return params


class _Showing(optuna.Study):
    """A study without the trials that are not to be seen."""

    seen: Callable[[FrozenTrial], bool]

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        # what Optuna caches for the duration of an ask is of another object
        trials = super()._get_trials(deepcopy=deepcopy, states=states, use_cache=False)
        return [trial for trial in trials if self.seen(trial)]


def showing(study: optuna.Study, seen: Callable[[FrozenTrial], bool]) -> optuna.Study:
    """Return the study as a sampler is to see it, with some of its trials alone."""
    found = _Showing(study.study_name, study._storage)
    found.seen = seen
    return found


class Heartbeat:
    """Keep the heartbeats of the running trials fresh, from a thread, as long as it is entered."""

    def __init__(
        self,
        storage: RDBStorage,
        trial_ids: Callable[[], Iterable[int]],
        *,
        interval: float = INTERVAL,
    ) -> None:
        self._storage = storage
        self._trial_ids = trial_ids
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._interval):
            for trial_id in self._trial_ids():
                # a storage that fails just now, or is another's, is the driver's to report
                with contextlib.suppress(StorageInternalError, SQLAlchemyError, SpecError):
                    self._storage.record_heartbeat(trial_id)
