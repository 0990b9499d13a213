"""run.json: what a run was started with, and which of its settings stay in force on resuming."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from archspec.spec.messages import mistakes
from archspec.spec.migrations import upgrade
from archspec.spec.tree import frozen, thawed
from archspec.spec.yaml_file import Source, dotted
from blocks.errors import SpecError, reason
from search.space.objectives import Objectives
from search.space.settings import SearchSettings, StopperName
from search.space.space import Space
from search.study.earlier import complete_settings
from search.trials.recorded import OTHER, from_record, to_record

RECORD = "run.json"
_COPY = "put back a copy of it; study.db and trials are not touched"
STOPPERS: tuple[str, ...] = get_args(StopperName)


@dataclass(frozen=True)
class RunRecord:
    """What run.json holds. `settings` are as they were recorded, by whatever release.

    `earlier_stopper` is the stopper of the first trials, where it is one that is gone. `test_cases`
    are None without a test part. `cases` are what the user's own are (`OwnCases.to_json`), None on
    nnU-Net's dataset, and then not written, as `storage` where the study is in the folder (else
    `Server.to_json`), and `persons`, whose the fold's cases are, where that was told. `absent`
    names the fields that the file lacked, so that it reads alike when it is told of.
    """

    space: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    configuration: str = ""
    fold: int = 0
    seed: int = 0
    convention: str = ""
    synthetic_task: str | None = None
    earlier_stopper: str | None = None
    test_cases: tuple[str, ...] | None = None
    cases: dict[str, Any] | None = None
    storage: dict[str, Any] | None = None
    persons: dict[str, str] | None = None
    absent: frozenset[str] = frozenset()
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunRecord":
        """Read the content of the file, its space as the present schema writes it.

        Raises:
            SpecError: the space is of a later schema.
            TypeError: it is none.
        """
        found = from_record(cls, content)
        if not isinstance(found.settings, dict) or not isinstance(found.test_cases, list | None):
            raise TypeError("settings or test_cases are not what a search writes")
        _check_types(found)
        absent = frozenset(f.name for f in fields(cls) if f.name not in content) - {"absent", OTHER}
        space, cases = found.space, found.test_cases
        if isinstance(space, dict):
            space = thawed(upgrade(Source(RECORD, frozen(space))).tree)
        cases = None if cases is None else tuple(cases)
        return replace(found, space=space, test_cases=cases, absent=absent)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        found, empty = to_record(self), vars(RunRecord())
        del found["absent"]
        for name in ("cases", "storage", "persons"):
            if getattr(self, name) is None:
                del found[name]
        if self.test_cases is not None:
            found["test_cases"] = list(self.test_cases)
        without = {name for name in self.absent if name in found and found[name] == empty[name]}
        return {name: value for name, value in found.items() if name not in without}

    @property
    def all_settings(self) -> dict[str, Any]:
        """Return every setting, see `earlier.complete_settings`."""
        return complete_settings(self.settings)

    @property
    def max_gflops(self) -> float | None:
        """Return the limit on the GFLOPs of a network."""
        limit: float | None = (self.settings.get("limits") or {}).get("gflops")
        return limit

    @property
    def objectives(self) -> Objectives:
        """Return what the search was after.

        Raises:
            ValueError: that is not what a search records.
        """
        return Objectives.read(self.settings.get("objectives"))

    @property
    def steps(self) -> int:
        """Return the optimizer steps of a training; 0 where they are not recorded."""
        return int(self.settings.get("steps", 0))


def _check_types(found: RunRecord) -> None:
    """See that the fields are what a search writes.

    Raises:
        TypeError, ValueError: they are not.
    """
    limits, match = found.settings.get("limits"), found.settings.get("match")
    gflops = limits.get("gflops") if isinstance(limits, dict) else None
    cases = found.test_cases
    right = {
        "space": isinstance(found.space, dict | None),
        "dataset": isinstance(found.dataset, str),
        "configuration": isinstance(found.configuration, str),
        "fold": isinstance(found.fold, int),
        "seed": isinstance(found.seed, int),
        "convention": isinstance(found.convention, str),
        "synthetic_task": isinstance(found.synthetic_task, str | None),
        "earlier_stopper": isinstance(found.earlier_stopper, str | None),
        "test_cases": cases is None or all(isinstance(case, str) for case in cases),
        "cases": isinstance(found.cases, dict | None),
        "storage": isinstance(found.storage, dict | None),
        "persons": found.persons is None or _know(found.persons, cases or ()),
        "settings.steps": isinstance(found.settings.get("steps", 0), int),
        "settings.limits": isinstance(limits, dict | None),
        "settings.limits.gflops": isinstance(gflops, int | float | None),
        "settings.match": isinstance(match, dict | None),
    }
    Objectives.read(found.settings.get("objectives"))
    wrong = [name for name, is_right in right.items() if not is_right]
    if wrong:
        raise TypeError(f"{', '.join(wrong)} is not what a search writes")


def _know(persons: object, cases: Iterable[str]) -> bool:
    """Say whether it tells whose each case is."""
    if not isinstance(persons, dict) or not all(isinstance(one, str) for one in persons.values()):
        return False
    return bool(persons) and set(cases) <= set(persons)


def read_run(folder: Path) -> RunRecord | None:
    """Return what the folder's run.json holds, None where there is neither that nor a run.

    Raises:
        SpecError: it is damaged, is gone, or has a space of a later schema.
    """
    file = folder / RECORD
    if not file.is_file():
        if (folder / "study.db").is_file() and any((folder / "trials").glob("*/spec.yaml")):
            raise SpecError("is gone", where=file, suggestion=_COPY)
        return None
    try:
        return RunRecord.from_json(json.loads(file.read_bytes().decode()))
    except SpecError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise SpecError(f"damaged: {reason(error)}", where=file, suggestion=_COPY) from None


def earlier_stopper(record: RunRecord | None) -> str | None:
    """Return the stopper of the run's first trials, where it is one that this release lacks."""
    if record is None:
        return None
    last: str | None = record.settings.get("stopper")
    return last if last is not None and last not in STOPPERS else record.earlier_stopper


def with_kept_settings(folder: Path, space: Space) -> Space:
    """Return the space with the settings of the run in the folder, but for those it gives itself.

    A new release has new settings and other defaults; a run goes on as it began.

    Raises:
        SpecError: the run's stopper is gone, and the space gives no other.
    """
    record = read_run(folder)
    if record is None:
        return space
    _check_stopper(folder, record, space)
    now = space.settings.model_dump(mode="json", include=space.settings.model_fields_set)
    return replace(space, settings=read_settings(folder / RECORD, {**record.all_settings, **now}))


def kept_settings(folder: Path, space: Space) -> dict[str, Any]:
    """Return the run's settings, by path, that the space does not give and has other defaults for.

    Empty where there is no run.

    Raises:
        SpecError: see `with_kept_settings`.
    """
    record = read_run(folder)
    if record is None:
        return {}
    _check_stopper(folder, record, space)
    run = _flat(record.all_settings)
    own = _flat(space.settings.model_dump(mode="json"))
    given = space.settings.model_fields_set
    return {
        path: value
        for path, value in run.items()
        if path.partition(".")[0] not in given and value != own.get(path)
    }


def kept_text(kept: dict[str, Any]) -> str:
    """Return one line."""
    what = ", ".join(f"{path} {json.dumps(value)}" for path, value in kept.items())
    return f"the run's own settings stay, since this command gives none: {what}"


def _check_stopper(folder: Path, record: RunRecord, space: Space) -> None:
    """Refuse to go on by a rule that is gone; trials stopped by another one must be asked for."""
    stopper = record.all_settings["stopper"]
    if stopper not in STOPPERS and "stopper" not in space.settings.model_fields_set:
        raise SpecError(
            f"its trials were stopped by {stopper!r}, which this release does not have",
            where=folder,
            suggestion=(
                "report, best and confirm read it as it is, and `resume` with `stopper` "
                f"{' or '.join(STOPPERS)} goes on"
            ),
        )


def read_settings(file: Path, recorded: dict[str, Any]) -> SearchSettings:
    """Return the settings that the run.json holds; `recorded` may have some exchanged.

    Raises:
        SpecError: this release does not know them.
    """
    try:
        return SearchSettings.model_validate_json(json.dumps(complete_settings(recorded)))
    except ValidationError as errors:
        newer = "if a later release made this run, use that one"
        found = [
            replace(one.problem, field=dotted(one.path), suggestion=one.problem.suggestion or newer)
            for one in mistakes(errors, SearchSettings)
        ]
        raise SpecError(found).below("settings").at(file) from None


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with those of `limits` and `match` by their paths."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key in ("limits", "match") and isinstance(value, dict):
            found |= {f"{key}.{name}": below for name, below in value.items()}
        else:
            found[key] = value
    return found
