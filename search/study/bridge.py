"""The storage of a study on a server, as its driver uses it: an outage is waited for.

The driver alone writes, see `ServerLock`. So it can tell, when the server answers again, whether
what it was about to write came through, and writes nothing twice.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from blocks.errors import AbsentError
from search.study.lock import ServerLock
from search.study.server import Server, cause

PATIENCE = 600.0
"""Seconds of an outage that are waited for."""
_PAUSE = 1.0
_READING = ("SELECT", "SHOW")

_ANSWERS = ("08", "53", "57")
"""Classes of SQLSTATE that say that the server cannot just now, not that it will not."""
_CALLS = (
    *("create_new_study", "delete_study", "set_study_user_attr", "set_study_system_attr"),
    *("get_study_id_from_name", "get_study_name_from_id", "get_study_directions"),
    *("get_study_user_attrs", "get_study_system_attrs", "get_all_studies"),
    *("_set_trial_param", "set_trial_intermediate_value", "set_trial_user_attr"),
    *("set_trial_system_attr", "get_trial_id_from_study_id_trial_number", "get_trial"),
    "_get_trials",
)
"""What may be done twice."""

T = TypeVar("T")


class ServerStorage(RDBStorage):
    """Optuna's storage under a lock; every call of the driver is tried again during an outage.

    Heartbeats are not: the thread that gives them has time.
    """

    def __init__(self, server: Server, lock: ServerLock, **options: Any) -> None:
        self._server = server
        self._run_lock = lock
        self._bridging = threading.local()
        self._last: int | None = None
        self.on_wait: Callable[[str], None] = lambda text: None
        super().__init__(server.template, engine_kwargs=server.engine_options, **options)

        @event.listens_for(self.engine, "before_cursor_execute")
        def check(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if not statement.lstrip().upper().startswith(_READING):
                lock.check()

    def _bridged(self, call: Callable[[bool], T]) -> T:
        """Return what the call does, tried until the server answers; it is told of a second try.

        Raises:
            AbsentError: the server did not answer for too long.
        """
        if getattr(self._bridging, "active", False):
            return call(False)
        self._bridging.active, since, again = True, None, False
        try:
            while True:
                try:
                    return call(again)
                except UpdateFinishedTrialError:
                    self._run_lock.check()  # by another driver? then that is what to tell
                    raise
                except (StorageInternalError, OperationalError, InterfaceError) as error:
                    if not _is_outage(error):
                        raise
                    again, now = True, time.monotonic()
                    if since is None:
                        since = now
                        minutes = f"{PATIENCE / 60:.0f} minutes"
                        told = f"{self._server} does not answer: {cause(error)}"
                        self.on_wait(f"{told}; waiting for up to {minutes}, trainings go on")
                    if now - since > PATIENCE:
                        raise AbsentError(
                            f"did not answer for {now - since:.0f} s: {cause(error)}",
                            where=str(self._server),
                            suggestion="go on with `resume` when it does",
                        ) from None
                time.sleep(_PAUSE)
        finally:
            self._bridging.active = False

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        def create(again: bool) -> FrozenTrial:
            if self._last is None:
                known = super(ServerStorage, self)._get_trials(study_id, None, set(), -1)
                self._last = max((trial._trial_id for trial in known), default=-1)
            return super(ServerStorage, self)._create_new_trial(study_id, template_trial)

        found = self._bridged(create)
        self._last = found._trial_id
        return found

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> TrialModel:
        """Return the trial that an earlier try has made, if its answer alone was lost."""
        made = session.query(TrialModel).filter(TrialModel.study_id == study_id)
        found = made.filter(TrialModel.trial_id > (self._last or -1)).one_or_none()
        if found is not None:
            return found
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        plain = super().set_trial_state_values

        def tell(again: bool) -> bool:
            try:
                told = plain(trial_id, state, values)
            except UpdateFinishedTrialError:
                if again and self.get_trial(trial_id).state == state:
                    return True
                raise
            return told or (again and self.get_trial(trial_id).state == state)

        return self._bridged(tell)


def _waiting(name: str) -> Callable[..., Any]:
    plain = getattr(RDBStorage, name)

    def call(self: ServerStorage, *args: Any, **kwargs: Any) -> Any:
        return self._bridged(lambda again: plain(self, *args, **kwargs))

    return call


for _name in _CALLS:
    setattr(ServerStorage, _name, _waiting(_name))


def _is_outage(error: Exception) -> bool:
    """Say whether this is about a connection, or a server that cannot just now."""
    found = error if isinstance(error, DBAPIError) else error.__cause__
    if not isinstance(found, DBAPIError):
        return False
    if found.connection_invalidated:
        return True
    state = getattr(found.orig, "sqlstate", None)
    is_kind = isinstance(found, OperationalError | InterfaceError)
    return is_kind and (state is None or state.startswith(_ANSWERS))
