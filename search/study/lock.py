"""One driver per study on a server: an advisory lock on a connection of its own."""

import hashlib
import json
import threading
import uuid

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from blocks.errors import SpecError
from search.study.server import Server

_VANISHED = ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3")
"""So that the server lets go of the lock of a driver whose machine vanished."""


class LockLostError(SpecError):
    """Another driver has the study now; nothing may be written any more."""


DRIVER = "driver"
"""The study's attribute with the mark of the driver that had the lock last."""


class ServerLock:
    """Held from entering on, or taken again, before anything is written, when its connection died.

    The server lets go of it when the connection ends, whatever became of the driver. Poolers in
    transaction mode break that: the address must be the server's own. `mark` is to be the study's
    attribute `DRIVER` once `marked`: so that nobody takes it again who slept through another one.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._engine = server.engine(poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None
        self._asking = threading.Lock()
        self.mark = uuid.uuid4().hex
        self.marked = False

    def __enter__(self) -> "ServerLock":
        try:
            held = self._take()
        except SQLAlchemyError as error:
            raise self._server.refusal(error) from None
        if not held:
            raise SpecError(
                "another search is running in this study",
                where=str(self._server),
                suggestion="wait for its end, or end it there",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def check(self) -> None:
        """See that the lock is held, taking it again where the connection was cut.

        Raises:
            LockLostError: another driver has it.
            SQLAlchemyError: the server does not answer.
        """
        with self._asking:
            if self._connection is not None:
                try:
                    self._connection.execute(text("SELECT 1"))
                    return
                except SQLAlchemyError:
                    self._drop()
            if not self._take() or not self._is_marked():
                self._drop()
                raise LockLostError(
                    "another search took this study over",
                    where=str(self._server),
                    suggestion="look at it with archspec status; nothing more is written here",
                )

    def _take(self) -> bool:
        self._connection = self._engine.connect()
        try:
            for one in _VANISHED:
                self._connection.execute(text(f"SET {one}"))
            take = text("SELECT pg_try_advisory_lock(:key)")
            held = bool(self._connection.execute(take, {"key": key_of(self._server)}).scalar())
        except SQLAlchemyError:
            self._drop()
            raise
        if not held:
            self._drop()
        return held

    def _is_marked(self) -> bool:
        if not self.marked:
            return True
        assert self._connection is not None
        found = self._connection.execute(
            text(
                "SELECT value_json FROM study_user_attributes JOIN studies USING (study_id) "
                "WHERE study_name = :study AND key = :key"
            ),
            {"study": self._server.study, "key": DRIVER},
        ).scalar()
        return found == json.dumps(self.mark)

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()  # the connection ends, and the lock with it
            connection.close()


def key_of(server: Server) -> int:
    """Return the number of the study's advisory lock in its database."""
    digest = hashlib.sha256(server.study.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
