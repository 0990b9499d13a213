"""Which of some runs are the controls of which, and their verdict as text and as JSON."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archspec.spec.yaml_file import Source
from archspec.text import table
from blocks.base import SpecError
from search.control import ControlVerdict, control_source, frozen
from search.opening import open_run


def controls_among(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the searches and their controls: runs whose space has no mixer to leave out.

    Raises:
        SpecError: no run, runs of other spaces, or searches or controls are missing.
    """
    spaces = {folder: _space(folder) for folder in folders}
    controls = [folder for folder in folders if _control(spaces[folder]) == spaces[folder]]
    searches = [folder for folder in folders if folder not in controls]
    if not searches or not controls:
        missing = "search" if controls else "control (a run of archspec search --control)"
        raise SpecError(
            f"control: no {missing} among {', '.join(map(str, folders))}; give one of each at least"
        )
    first = searches[0]
    for folder in searches:
        if spaces[folder] != spaces[first]:
            raise SpecError(f"{folder}: its space is not that of {first}")
    for folder in controls:
        if spaces[folder] != _control(spaces[first]):
            raise SpecError(
                f"{folder}: its space is not the control of {first}'s; give `archspec search "
                "--control` the space and overrides that it was searched with"
            )
    return searches, controls


def verdict_text(found: ControlVerdict, searches: Sequence[Path], controls: Sequence[Path]) -> str:
    """Return a row per run, and the verdict."""
    rows = [["run", "kind", "hypervolume"]]
    for kind, folders, volumes in (
        ("search", searches, found.searches),
        ("control", controls, found.controls),
    ):
        pairs = zip(folders, volumes, strict=True)
        rows += [[str(folder), kind, f"{volume:.4f}"] for folder, volume in pairs]
    return "\n".join(
        [
            *table(rows),
            "hypervolume: decades of FLOPs x validation Dice that a front dominates",
            found.text(),
        ]
    )


def verdict_json(
    found: ControlVerdict, searches: Sequence[Path], controls: Sequence[Path]
) -> dict[str, Any]:
    """Return plain data; the ends of an interval that is unknown are null."""
    ends = [None if math.isnan(end) else end for end in (found.low, found.high)]
    return {
        "searches": dict(zip(map(str, searches), found.searches, strict=True)),
        "controls": dict(zip(map(str, controls), found.controls, strict=True)),
        "difference": found.mean,
        "low": ends[0],
        "high": ends[1],
        "verdict": found.text(),
    }


def _space(folder: Path) -> dict[str, Any]:
    """Return the raw tree of the run's space, without its name."""
    space = frozen(open_run(folder)[1].get("space"))
    if not isinstance(space, dict):
        raise SpecError(f"{folder}: its run.json tells no space")
    return {key: value for key, value in space.items() if key != "name"}


def _control(space: dict[str, Any]) -> Any:
    return control_source(Source("run.json", space)).tree
