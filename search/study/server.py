"""A study on a PostgreSQL server, in place of the run folder's `study.db`.

The run folder notes the address without a password. One that was given in the address is used and
kept in memory alone; libpq finds others by itself: ~/.pgpass, PGPASSWORD, a service file.
"""

import importlib.util
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from blocks.errors import SpecError, reason

VARIABLE = "ARCHSPEC_STORAGE"
"""Of the environment: the server of new runs, and the password of those that are on it."""
IN_FOLDER = "sqlite"
"""In place of an address: in the run folder, on whatever drive that is."""
_DRIVER = "postgresql+psycopg"
_ALLOWED = "postgresql://user@host/database, whose password comes from ~/.pgpass or PGPASSWORD"
_SECRETS = ("password", "sslpassword")
_OPTIONS = {
    "connect_timeout": "10",
    # a server that vanished without a word is noticed within about a minute
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


@dataclass(frozen=True)
class Server:
    """Where a run's study is: the `url` has no password, and `study` is its name there."""

    url: URL
    study: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def new(cls, address: str) -> "Server":
        """Return the server for a run that is to begin: its study's name is nobody else's.

        Raises:
            SpecError: it is no address of one, or psycopg is missing.
        """
        return cls._at(address, f"archspec-{uuid.uuid4().hex}")

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> "Server":
        """Return the server that a run folder notes; its password may be in the environment.

        Raises:
            SpecError: it is no address of one, or psycopg is missing.
        """
        server = cls._at(str(noted.get("url")), str(noted.get("study")))
        given = os.environ.get(VARIABLE)
        if given and given != IN_FOLDER:
            other = cls._at(given, server.study)
            if _place(other.url) == _place(server.url):
                return replace(server, secrets=other.secrets)
        return server

    @classmethod
    def _at(cls, address: str, study: str) -> "Server":
        url = _parsed(address)
        secrets = {name: str(url.query[name]) for name in _SECRETS if name in url.query}
        if url.password is not None:
            secrets["password"] = str(url.password)
        if importlib.util.find_spec("psycopg") is None:
            raise SpecError(
                "a study on PostgreSQL needs psycopg, which is not installed",
                field="storage",
                suggestion='pip install "archspec-seg[cluster]"',
            )
        plain = URL.create(
            _DRIVER,
            username=url.username,
            host=url.host,
            port=url.port,
            database=url.database,
            query={name: value for name, value in url.query.items() if name not in _SECRETS},
        )
        return cls(plain, study, secrets)

    def moved(self, address: str) -> "Server":
        """Return the same study at another address.

        Raises:
            SpecError: it is none.
        """
        return self._at(address, self.study)

    def to_json(self) -> dict[str, str]:
        """Return what a run folder notes."""
        return {"url": str(self), "study": self.study}

    def __str__(self) -> str:
        return self.url.set(drivername="postgresql").render_as_string()

    @property
    def template(self) -> str:
        """Return the address as Optuna takes it, which fills braces in; it has no password."""
        return self.url.render_as_string().replace("{", "{{").replace("}", "}}")

    @property
    def engine_options(self) -> dict[str, Any]:
        """Return how to connect, beside the address."""
        options = {name: value for name, value in _OPTIONS.items() if name not in self.url.query}
        return {
            "pool_pre_ping": True,
            "connect_args": {"application_name": "archspec", **options, **self.secrets},
        }

    def engine(self, **options: Any) -> Engine:
        """Return a way to connections."""
        return create_engine(self.url, **self.engine_options, **options)

    def has_study(self) -> bool:
        """Say whether the study is there; without Optuna, which would make tables on the way.

        Raises:
            SpecError: the server does not answer, or refuses.
        """
        engine = self.engine()
        try:
            with engine.connect() as connection:
                if connection.execute(text("SELECT to_regclass('studies')")).scalar() is None:
                    return False
                found = text("SELECT 1 FROM studies WHERE study_name = :name")
                return connection.execute(found, {"name": self.study}).scalar() is not None
        except SQLAlchemyError as error:
            raise self.refusal(error) from None
        finally:
            engine.dispose()

    def refusal(self, error: BaseException) -> SpecError:
        """Return what to tell where the server cannot be used: neither address nor password."""
        return SpecError(
            f"cannot be used: {cause(error)}",
            where=str(self),
            suggestion="archspec doctor --storage looks at it alone",
        )


def cause(error: BaseException) -> str:
    """Return the reason that the system or a database gives, in one line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return reason(error)


def server_of(asked: str | None, noted: Mapping[str, Any] | None, *, new: bool) -> Server | None:
    """Return where the study is, or is to be; None where in the run folder.

    `noted` is what the run that is there notes. A run stays where it is: the environment decides
    about new ones alone, while `asked` may be the server's new address.

    Raises:
        SpecError: it is no address, or the run is in its folder.
    """
    if new:
        address = asked or os.environ.get(VARIABLE)
        return Server.new(address) if address and address != IN_FOLDER else None
    if noted is None:
        if asked and asked != IN_FOLDER:
            raise SpecError("the run's study is in its folder, and stays there", field="storage")
        return None
    if asked == IN_FOLDER:
        raise SpecError("the run's study is on a server, and stays there", field="storage")
    return Server.of(noted).moved(asked) if asked else Server.of(noted)


def _parsed(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise SpecError("is no address", field="storage", allowed=_ALLOWED) from None
    if url.drivername not in ("postgresql", "postgres", _DRIVER):
        raise SpecError(f"{url.drivername} is not known", field="storage", allowed=_ALLOWED)
    if not url.database and "service" not in url.query:
        raise SpecError("names no database", field="storage", allowed=_ALLOWED)
    return url


def _place(url: URL) -> tuple[object, ...]:
    return url.username, url.host, url.port, url.database
