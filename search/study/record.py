"""run.json: what a run was started with, and which of its settings stay in force on resuming."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from archspec.spec.messages import mistakes
from archspec.spec.migrations import upgrade
from archspec.spec.tree import frozen, thawed
from archspec.spec.yaml_file import Source, dotted
from blocks.base import SpecError
from search.space.settings import SearchSettings, StopperName
from search.space.space import Space

RECORD = "run.json"
STOPPERS: tuple[str, ...] = get_args(StopperName)


def read_run_json(folder: Path) -> dict[str, Any]:
    """Return run.json, its space as the present schema writes it; empty without a run."""
    file = folder / RECORD
    if not file.is_file():
        return {}
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(record.get("space"), dict):
        space = upgrade(Source(RECORD, frozen(record["space"]))).tree
        record["space"] = thawed(space)
    return record


def read_record(folder: Path) -> dict[str, Any]:
    """Return run.json with the settings complete, see `of_earlier_release`; empty without a run."""
    record = read_run_json(folder)
    settings = of_earlier_release(record.get("settings", {}))
    return {**record, "settings": settings} if record else {}


def earlier_stopper(record: dict[str, Any]) -> str | None:
    """Return the stopper of the run's first trials, where it is one that this release lacks."""
    last: str | None = record.get("settings", {}).get("stopper")
    if last is not None and last not in STOPPERS:
        return last
    earlier: str | None = record.get("earlier_stopper")
    return earlier


def with_kept_settings(folder: Path, space: Space) -> Space:
    """Return the space with the settings of the run in the folder, but for those it gives itself.

    A new release has new settings and other defaults; a run goes on as it began.

    Raises:
        SpecError: the run's stopper is gone, and the space gives no other.
    """
    record = read_record(folder)
    if not record:
        return space
    _check_stopper(folder, record, space)
    now = space.settings.model_dump(mode="json", include=space.settings.model_fields_set)
    return replace(space, settings=read_settings(folder / RECORD, {**record["settings"], **now}))


def kept_settings(folder: Path, space: Space) -> dict[str, Any]:
    """Return the run's settings, by path, that the space does not give and has other defaults for.

    Empty where there is no run.

    Raises:
        SpecError: see `with_kept_settings`.
    """
    record = read_record(folder)
    if not record:
        return {}
    _check_stopper(folder, record, space)
    run = _flat(record["settings"])
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


def _check_stopper(folder: Path, record: dict[str, Any], space: Space) -> None:
    """Refuse to go on by a rule that is gone; trials stopped by another one must be asked for."""
    stopper = record["settings"]["stopper"]
    if stopper not in STOPPERS and "stopper" not in space.settings.model_fields_set:
        raise SpecError(
            f"{folder}: its trials were stopped by {stopper!r}, which this release does not have; "
            f"report, best and confirm read it as it is, and --resume --stopper "
            f"{' or --stopper '.join(STOPPERS)} goes on"
        )


def read_settings(file: Path, recorded: dict[str, Any]) -> SearchSettings:
    """Return the settings that the run.json holds; `recorded` may have some exchanged.

    Raises:
        SpecError: this release does not know them.
    """
    try:
        return SearchSettings.model_validate_json(json.dumps(of_earlier_release(recorded)))
    except ValidationError as errors:
        newer = "if a later release made this run, use that one"
        found = [
            replace(one, field=dotted(path), suggestion=one.suggestion or newer)
            for path, one in mistakes(errors, SearchSettings)
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


def of_earlier_release(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a run's recorded settings, with what was done before there was a setting for it."""
    before = SearchSettings(eta=1, stopper="none").model_dump(mode="json")
    return {**before, **settings}
