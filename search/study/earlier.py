"""What earlier releases wrote in words or not at all: read here, and nowhere else."""

import re
from collections.abc import Mapping
from typing import Any

from search.space.limits import UNITS, Excess
from search.space.settings import SearchSettings
from search.study.end import End

_EXCESS = re.compile(r"([\d.,]+) ([^,]+), over the limit of ([\d.,e+-]+|[\d.]+ ?[A-Za-z]+)")
_NAMES = {unit: name for name, unit in UNITS.items()}


def end_in_words(
    reason: str | None, rejected: str | None, lost: str | None, *, over: bool
) -> End | None:
    """Return why a trial ended, where it kept the words for it alone; None where none were kept.

    `over` says that a constraint of the trial is not kept.
    """
    if reason is not None:
        return End.FAILED
    if rejected is not None:
        if rejected.startswith("invalid"):
            return End.INVALID
        return End.OVER_LIMIT if over or "over the limit" in rejected else End.REPEATED
    return None if lost is None else End.LOST


def excesses_in_words(rejected: str) -> tuple[Excess, ...]:
    """Return what a trial was over, as far as its words tell."""
    found = []
    for part in rejected.split("; "):
        match = _EXCESS.fullmatch(part)
        if match is None or match[2] not in _NAMES:
            continue
        name, value = _NAMES[match[2]], float(match[1].replace(",", ""))
        if name == "memory":
            found.append(Excess(name, 1e9 * value, match[3]))
        else:
            whole = int(value) if name == "params" else value
            found.append(Excess(name, whole, float(match[3].replace(",", ""))))
    return tuple(found)


def flops_of_constraints(constraints: Mapping[str, float], max_gflops: float | None) -> int | None:
    """Return the FLOPs of a refused trial that kept only log10 of them over the limit."""
    excess = constraints.get("gflops")
    return None if max_gflops is None or excess is None else round(1e9 * max_gflops * 10**excess)


def complete_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's recorded settings, with what was done before there was a setting for it."""
    before = SearchSettings(eta=1, stopper="none", weights="last").model_dump(mode="json")
    match = settings.get("match")
    if match is not None:
        settings = {**settings, "match": {"macs_per_voxel": None, **match}}
    return {**before, **settings}
