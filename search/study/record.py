"""run.json: what a run was started with, and which of its settings stay in force on resuming."""

import json
from pathlib import Path
from typing import Any

from archspec.spec.migrations import upgrade
from archspec.spec.tree import frozen
from archspec.spec.yaml_file import Source
from search.space.settings import SearchSettings
from search.space.space import Space

RECORD = "run.json"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what run.json says, its space as the present schema writes it; None without one."""
    file = folder / RECORD
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(record.get("space"), dict):
        space = upgrade(Source(RECORD, frozen(record["space"]))).tree
        record["space"] = json.loads(json.dumps(space))
    return record


def kept_settings(folder: Path, space: Space) -> dict[str, Any]:
    """Return the run's settings, by path, that the space does not give and has other defaults for.

    Empty where there is no run.
    """
    record = read_record(folder)
    if record is None:
        return {}
    run = _flat(of_earlier_release(record.get("settings", {})))
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
