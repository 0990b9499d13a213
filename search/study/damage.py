"""Is what a run folder holds what its search wrote? Looked at before anything of it is used."""

import contextlib
import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.trial import FrozenTrial, TrialState

from blocks.errors import SpecError, reason
from search.space.references import reference_of
from search.study.server import Server
from search.study.trial_record import TrialRecord, end_of

DATABASE = "study.db"
STUDY = "search"
_PATIENCE = 5
"""Seconds to wait for another process that holds the database, before it is told."""
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_TRIAL_NUMBERS = (
    *("seed", "flops", "macs", "scan_flops", "params", "memory", "started", "seconds"),
    *("latency", "calibration"),
    *("windows_per_volume", "flops_per_volume", "retried_at", "resumed_from", "origin", "twin"),
    "places_lost",
)
_TRIAL_TEXTS = (
    *("trial_hash", "network", "host", "reason", "rejected", "lost", "taken_from"),
    *("trained_on", "gpu", "precision"),
)


def has_study(folder: Path, server: Server | None = None, *, writing: bool = False) -> bool:
    """Say whether the study was created; without Optuna, which would make tables on the way.

    A reader that makes some while the search does breaks both: "table ... already exists".

    Raises:
        SpecError: the database is damaged or gone, or another process holds it: for readers too,
            or where `writing`.
    """
    file, found = folder / DATABASE, False
    if server is not None:
        found = server.has_study()
    elif file.is_file():
        try:
            found = _looked_at(file, writing=writing)
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB) & 0xFF
            if code in _HELD:
                raise SpecError(
                    "another process holds it",
                    where=file,
                    suggestion="end that one, or wait for it, and give the same command again",
                ) from None
            if code not in _DAMAGE:  # no rights, a disk that fails
                raise SpecError(f"cannot be read: {reason(error)}", where=file) from None
            refuse_database(folder, f"damaged: {reason(error)}")
    if not found and any((folder / "trials").glob("*")):
        there = server is not None or file.is_file()
        refuse_database(folder, "holds no search any more" if there else "is gone", server)
    return found


def _looked_at(file: Path, *, writing: bool) -> bool:
    # rw: what a killed writer left half-done must be rolled back; never creates the file
    uri = f"{file.resolve().as_uri()}?mode=rw"
    options: dict[str, Any] = {"uri": True, "timeout": _PATIENCE, "isolation_level": None}
    with contextlib.closing(sqlite3.connect(uri, **options)) as database:
        database.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        ((verdict,), *_) = database.execute("PRAGMA integrity_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.splitlines()[-1])  # a heading may come first
        tables = "SELECT 1 FROM sqlite_master WHERE name = 'studies'"
        if not database.execute(tables).fetchone():
            return False
        named = database.execute("SELECT 1 FROM studies WHERE study_name = ?", (STUDY,))
        return named.fetchone() is not None


def refuse_database(folder: Path, problem: str, server: Server | None = None) -> NoReturn:
    """Say what is left of a run whose database is not what its search wrote.

    Raises:
        SpecError: always.
    """
    count = sum(1 for _ in (folder / "trials").glob("*/spec.yaml"))
    kept = f"; the specs and metrics of {count} trials are in {folder / 'trials'}" if count else ""
    raise SpecError(
        problem,
        where=folder / DATABASE if server is None else str(server),
        suggestion=f"put back a copy of it, or search anew{kept}",
    )


def check_trials(folder: Path, study: optuna.Study, server: Server | None = None) -> None:
    """See that all that the study holds of its trials can be read.

    Raises:
        SpecError: it cannot.
    """
    number = -1
    try:
        for trial in study.get_trials(deepcopy=False):
            number = trial.number
            _check(trial, len(study.directions))
    except Exception as error:  # Optuna has no one error for values that it never wrote
        which = "damaged" if number < 0 else f"damaged in trial {number}"
        refuse_database(folder, f"{which}: {reason(error)}", server)


def _check(trial: FrozenTrial, num_values: int) -> None:
    """See that the trial has what a search gives it, as far as types tell.

    Raises:
        TypeError, ValueError, and whatever reading raises: it has not.
    """
    record = TrialRecord.of(trial)
    end_of(trial)
    reference_of(trial)
    for name in _TRIAL_NUMBERS:
        _check_number(name, getattr(record, name))
    for name in _TRIAL_TEXTS:
        value = getattr(record, name)
        if not isinstance(value, str | None):
            raise TypeError(f"{name} is {value!r}")
    if record.flops is not None and not record.flops > 0:
        raise ValueError(f"flops is {record.flops}")
    for rung in record.rungs:
        for name in ("step", "loss", "seconds", "smoothed", "waited"):
            _check_number(name, getattr(rung, name))
        _check_scores(rung.scores)
    if record.scores is not None:
        _check_scores(record.scores)
    if trial.state == TrialState.COMPLETE:
        costs = (record.flops, record.macs, record.params)
        if None in costs and any(costs):  # without any it may be of a release that noted none
            raise ValueError("some of its costs are gone")
        if len(trial.values) != num_values or not all(map(math.isfinite, trial.values)):
            raise ValueError(f"values are {trial.values}")


def _check_scores(scores: Any) -> None:
    if not isinstance(scores, Mapping) or not isinstance(scores.get("mean"), int | float):
        raise TypeError("scores without a mean")
    for name, value in scores.items():
        _check_number(name, value)


def _check_number(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{name} is {value!r}")
