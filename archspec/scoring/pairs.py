"""Compare two folders of predictions over the same cases."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from archspec.scoring.dice import mean
from archspec.scoring.masks import mask_names
from archspec.scoring.scores import TERCILES, Evaluation, Metric, number, terciles
from archspec.scoring.statistics import Interval, cases_needed, holm, paired_bootstrap, wilcoxon
from blocks.base import SpecError

COMPARED: tuple[Metric, ...] = ("dice", "surface_dice", "hd95_mm")
BY_SIZE: tuple[Metric, ...] = ("boundary_precision", "dice", "surface_dice")
OVERALL = "mean"
FEWEST_PAIRS = 6
_ALPHA = 0.05


def check_same_cases(a: Path, b: Path, ending: str) -> None:
    """Check that two folders hold the same masks.

    Raises:
        SpecError: naming the first that only one has.
    """
    in_a, in_b = (set(mask_names(folder, ending)) for folder in (a, b))
    if only := sorted(in_a ^ in_b):
        having, lacking = (a, b) if only[0] in in_a else (b, a)
        raise SpecError(
            f"{lacking / only[0]}: no such prediction, but {having} has one; a paired comparison "
            "needs the same cases"
        )


def compare(a: Evaluation, b: Evaluation, classes: Iterable[str], *, seed: int) -> dict[str, Any]:
    """Return paired differences a - b per metric and class, and per size of the structure.

    `mean` is the mean over classes by case; its p stands alone, those of classes and groups are
    corrected for each other. `exceeds_noise` needs both: an interval without 0, and a corrected p
    under .05. Cases in which either has no score are left out; `pairs` counts the rest, and below
    six there is no interval.
    """
    classes = tuple(classes)
    return {
        "level": 0.95,
        "alpha": _ALPHA,
        "power": 0.8,
        "differences": {metric: _differences(a, b, metric, classes, seed) for metric in COMPARED},
        "terciles": {
            metric: {name: _by_size(a, b, metric, name, seed) for name in a.scores}
            for metric in BY_SIZE
        },
    }


def _differences(
    a: Evaluation, b: Evaluation, metric: Metric, classes: tuple[str, ...], seed: int
) -> dict[str, Any]:
    columns = {name: (a.values(metric, name), b.values(metric, name)) for name in a.scores}
    found = {name: _difference(*columns[name], metric, seed) for name in columns}
    p_values = [math.nan if one["p"] is None else one["p"] for one in found.values()]
    for one, p in zip(found.values(), holm(p_values), strict=True):
        one["p_holm"] = number(p)
    overall = _difference(*_class_means([columns[name] for name in classes]), metric, seed)
    overall["p_holm"] = overall["p"]
    found = {OVERALL: overall, **found}
    for one in found.values():
        p = one["p_holm"]
        one["exceeds_noise"] = bool(one["excludes_zero"] and p is not None and p < _ALPHA)
    return found


def _class_means(
    columns: list[tuple[list[float], list[float]]],
) -> tuple[list[float], list[float]]:
    """Return each case's mean over the classes that both have a score of."""
    both = [np.where(np.isnan(np.add(a, b)), np.nan, np.array([a, b])) for a, b in columns]
    means = [[mean(row) for row in np.array(both)[:, side].T.tolist()] for side in (0, 1)]
    return means[0], means[1]


def _difference(a: list[float], b: list[float], metric: Metric, seed: int) -> dict[str, Any]:
    pairs = [pair for pair in zip(a, b, strict=True) if not math.isnan(sum(pair))]
    if not pairs:
        interval, p, needed = Interval(math.nan, math.nan, math.nan), math.nan, None
    else:
        ours, theirs = zip(*pairs, strict=True)
        interval = paired_bootstrap(ours, theirs, seed)
        if len(pairs) < FEWEST_PAIRS:
            interval = Interval(interval.mean, math.nan, math.nan)
        p = wilcoxon(ours, theirs)
        needed = cases_needed(ours, theirs)
    sign = -1 if metric == "hd95_mm" else 1
    better = [sign * (x - y) for x, y in pairs]
    return {
        "pairs": len(pairs),
        "a": number(mean([x for x, _ in pairs])),
        "b": number(mean([y for _, y in pairs])),
        "difference": number(interval.mean),
        "low": number(interval.low),
        "high": number(interval.high),
        "excludes_zero": interval.excludes_zero,
        "p": number(p),
        "wins": sum(gain > 0 for gain in better),
        "ties": sum(gain == 0 for gain in better),
        "losses": sum(gain < 0 for gain in better),
        "cases_needed": needed,
    }


def _by_size(
    a: Evaluation, b: Evaluation, metric: Metric, name: str, seed: int
) -> dict[str, Any] | None:
    parts = terciles(a.scores[name])
    if parts is None:
        return None
    found = {}
    kept = ("pairs", "a", "b", "difference", "low", "high", "excludes_zero")
    for tercile, part in zip(TERCILES, parts, strict=True):
        columns = [[one.values(metric, name)[k] for k in part] for one in (a, b)]
        full = _difference(columns[0], columns[1], metric, seed)
        found[tercile] = {key: full[key] for key in kept}
    return found
