"""Compare two folders of predictions over the same cases."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
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
_LEVEL = 0.95
_ALPHA = 0.05
_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Paired:
    """Means of both over the pairs, and their difference a - b with its interval.

    None where there is no pair, and for the ends of the interval below `FEWEST_PAIRS`.
    """

    pairs: int
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    excludes_zero: bool


@dataclass(frozen=True, slots=True)
class Difference(Paired):
    """Also tested: `p_holm` is corrected over classes and groups, that of all classes is `p`.

    Wins and losses are those of a; `cases_needed` to see the difference, were it as large as here.
    """

    p: float | None
    wins: int
    ties: int
    losses: int
    cases_needed: int | None
    p_holm: float | None

    @property
    def exceeds_noise(self) -> bool:
        """Whether the interval leaves out 0 and the corrected p is under .05."""
        return self.excludes_zero and self.p_holm is not None and self.p_holm < _ALPHA


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences per metric and class, `OVERALL` first, and per metric, class and tercile."""

    differences: dict[Metric, dict[str, Difference]]
    terciles: dict[Metric, dict[str, dict[str, Paired] | None]]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "level": _LEVEL,
            "alpha": _ALPHA,
            "power": _POWER,
            "differences": {
                metric: {
                    name: {**asdict(one), "exceeds_noise": one.exceeds_noise}
                    for name, one in found.items()
                }
                for metric, found in self.differences.items()
            },
            "terciles": {
                metric: {
                    name: parts and {tercile: asdict(one) for tercile, one in parts.items()}
                    for name, parts in found.items()
                }
                for metric, found in self.terciles.items()
            },
        }


def check_same_cases(a: Path, b: Path, ending: str) -> None:
    """Check that two folders hold the same masks.

    Raises:
        SpecError: naming the first that only one has.
    """
    in_a, in_b = (set(mask_names(folder, ending)) for folder in (a, b))
    if only := sorted(in_a ^ in_b):
        having, lacking = (a, b) if only[0] in in_a else (b, a)
        raise SpecError(
            f"no such prediction, but {having} has one",
            where=lacking / only[0],
            suggestion="a paired comparison needs the same cases",
        )


def compare(a: Evaluation, b: Evaluation, classes: Iterable[str], *, seed: int) -> Comparison:
    """Return paired differences a - b per metric and class, and per size of the structure.

    `mean` is the mean over classes by case; its p stands alone, those of classes and groups are
    corrected for each other. Cases in which either has no score are left out; `pairs` counts the
    rest, and below six there is no interval.
    """
    classes = tuple(classes)
    return Comparison(
        differences={metric: _differences(a, b, metric, classes, seed) for metric in COMPARED},
        terciles={
            metric: {name: _by_size(a, b, metric, name, seed) for name in a.scores}
            for metric in BY_SIZE
        },
    )


def _differences(
    a: Evaluation, b: Evaluation, metric: Metric, classes: tuple[str, ...], seed: int
) -> dict[str, Difference]:
    columns = {name: (a.values(metric, name), b.values(metric, name)) for name in a.scores}
    found = {name: _difference(*columns[name], metric, seed) for name in columns}
    corrected = holm([math.nan if one.p is None else one.p for one in found.values()])
    overall = _difference(*_class_means([columns[name] for name in classes]), metric, seed)
    return {
        OVERALL: overall,
        **{
            name: replace(one, p_holm=number(p))
            for (name, one), p in zip(found.items(), corrected, strict=True)
        },
    }


def _class_means(
    columns: list[tuple[list[float], list[float]]],
) -> tuple[list[float], list[float]]:
    """Return each case's mean over the classes that both have a score of."""
    both = [np.where(np.isnan(np.add(a, b)), np.nan, np.array([a, b])) for a, b in columns]
    means = [[mean(row) for row in np.array(both)[:, side].T.tolist()] for side in (0, 1)]
    return means[0], means[1]


def _pairs(a: list[float], b: list[float]) -> list[tuple[float, float]]:
    return [pair for pair in zip(a, b, strict=True) if not math.isnan(sum(pair))]


def _paired(pairs: list[tuple[float, float]], seed: int) -> Paired:
    ours, theirs = [x for x, _ in pairs], [y for _, y in pairs]
    interval = Interval(math.nan, math.nan, math.nan)
    if pairs:
        interval = paired_bootstrap(ours, theirs, seed)
    if len(pairs) < FEWEST_PAIRS:
        interval = Interval(interval.mean, math.nan, math.nan)
    return Paired(
        pairs=len(pairs),
        a=number(mean(ours)),
        b=number(mean(theirs)),
        difference=number(interval.mean),
        low=number(interval.low),
        high=number(interval.high),
        excludes_zero=interval.excludes_zero,
    )


def _difference(a: list[float], b: list[float], metric: Metric, seed: int) -> Difference:
    """Return the difference with its test; `p_holm` is `p`, as of one that is tested alone."""
    pairs = _pairs(a, b)
    p, needed = None, None
    if pairs:
        ours, theirs = zip(*pairs, strict=True)
        p, needed = number(wilcoxon(ours, theirs)), cases_needed(ours, theirs)
    sign = -1 if metric == "hd95_mm" else 1
    better = [sign * (x - y) for x, y in pairs]
    return Difference(
        **asdict(_paired(pairs, seed)),
        p=p,
        wins=sum(gain > 0 for gain in better),
        ties=sum(gain == 0 for gain in better),
        losses=sum(gain < 0 for gain in better),
        cases_needed=needed,
        p_holm=p,
    )


def _by_size(
    a: Evaluation, b: Evaluation, metric: Metric, name: str, seed: int
) -> dict[str, Paired] | None:
    parts = terciles(a.scores[name])
    if parts is None:
        return None
    values = a.values(metric, name), b.values(metric, name)
    return {
        tercile: _paired(_pairs(*([column[k] for k in part] for column in values)), seed)
        for tercile, part in zip(TERCILES, parts, strict=True)
    }
