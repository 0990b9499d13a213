"""Which settings of a run stay in force when it is gone on with, though the space has others."""

import json
from pathlib import Path
from typing import Any

from search.space.settings import SearchSettings
from search.space.space import Space


def kept_settings(folder: Path, space: Space) -> dict[str, Any]:
    """Return the run's settings, by path, that the space does not give and has other defaults for.

    Empty where there is no run.
    """
    file = folder / "run.json"
    if not file.is_file():
        return {}
    recorded = json.loads(file.read_text(encoding="utf-8")).get("settings", {})
    run = _flat(of_earlier_release(recorded))
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
