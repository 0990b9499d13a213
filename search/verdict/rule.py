"""How an answer follows from scores: one interval, two bounds, and what would narrow it."""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from archspec.scoring.statistics import Interval, ScoreArray, hierarchical_bootstrap

Answer = Literal["this spec", "keep", "mixer", "cannot say"]

LEVEL = 0.95
MIN_UNITS = 6
"""Below six a signed-rank test cannot reach .05 either; a bootstrap of fewer says too much."""
MIN_SEEDS = 2
"""One training says nothing about the noise of training."""
_POWER = 0.8
_TOUCHES = 1e-9
"""Dice: an end this near to a bound touches it, and has not passed it."""


@dataclass(frozen=True)
class Needed:
    """What would decide with power 0.8, were the difference the one found here.

    `units` and `seeds` are further ones, each alone; None where no number of them would. `times`
    is by how much both would have to grow where neither alone does. With `at_least` both are what
    any answer needs.
    """

    units: int | None
    seeds: int | None
    times: float | None = None
    at_least: bool = False

    def text(self, unit: str) -> str:
        """Return it in words."""
        ways = list(filter(None, [_more(self.units, unit), _more(self.seeds, "seed")]))
        if self.at_least:
            return f"any answer needs {' and '.join(ways)}"
        if ways:
            return f"{' or '.join(ways)} would"
        assert self.times is not None
        return f"{self.times:.1f} times as many {unit}s and seeds would"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def interval_of(a: ScoreArray, b: ScoreArray, seed: int) -> Interval:
    """Return the mean of a - b with its interval over persons (or cases) and seeds."""
    return hierarchical_bootstrap(a, b, seed, level=LEVEL)


def is_enough(a: ScoreArray, b: ScoreArray) -> bool:
    """Say whether there are persons (or cases) and seeds enough for any answer."""
    return a.shape[1] >= MIN_UNITS and min(len(a), len(b)) >= MIN_SEEDS


def above(end: float, bound: float) -> bool:
    """Say whether an end lies above a bound; one that touches it does not."""
    return end - bound > _TOUCHES


def of_network(found: Interval, margin: float, *, saves: bool) -> Answer:
    """Decide between a spec and nnU-Net's network, from the spec's Dice less that of the curve.

    Non-inferior is an interval above -margin; it is worth a change where it also saves memory, or
    lies above 0. An interval below 0 that is not above -margin says that the spec is worse.
    """
    if above(found.low, -margin):
        return "this spec" if saves or above(found.low, 0) else "keep"
    return "keep" if above(0, found.high) else "cannot say"


def worth(found: Interval) -> str:
    """Return what an interval shows of a mixer's worth."""
    if above(found.low, 0):
        return "shown"
    return "it costs Dice" if above(0, found.high) else "not shown"


def needed(a: ScoreArray, b: ScoreArray, margin: float, *, mixer: bool) -> Needed:
    """Return what would carry the interval past the bound that the difference lies on this side of.

    By a normal approximation with the variances found here: of persons' (or cases') differences,
    and of the seeds' means of both networks. For a mixer the distance is the margin.
    """
    units, seeds = a.shape[1], min(len(a), len(b))
    if not is_enough(a, b):
        return Needed(_short(units, MIN_UNITS), _short(seeds, MIN_SEEDS), at_least=True)
    difference = a.mean(axis=0) - b.mean(axis=0)
    mean = float(difference.mean())
    gap = margin if mixer else max(mean + margin, -mean)
    normal = NormalDist()
    z = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(_POWER)
    allowed = (gap / z) ** 2
    of_units = float(difference.var(ddof=1)) / units
    of_seeds = float(a.mean(axis=1).var(ddof=1) + b.mean(axis=1).var(ddof=1)) / seeds
    more_units = _further(units, of_units, allowed - of_seeds)
    more_seeds = _further(seeds, of_seeds, allowed - of_units)
    if more_units is None and more_seeds is None:
        return Needed(None, None, (of_units + of_seeds) / allowed)
    return Needed(more_units, more_seeds)


def blended(low: ScoreArray, high: ScoreArray, share: float) -> ScoreArray:
    """Return scores between two networks, `share` of the way to the second.

    Training k of one is paired with training k of the other. They are independent, so any pairing
    has the mean, and over seeds the variance, of the sum.
    """
    seeds = min(len(low), len(high))
    found: ScoreArray = np.asarray((1 - share) * low[:seeds] + share * high[:seeds])
    return found


def _further(number: int, variance: float, allowed: float) -> int | None:
    """Return how many more are needed for a variance of the mean, now `variance`, to be allowed."""
    if allowed <= 0:
        return None
    return max(math.ceil(number * variance / allowed) - number, 1)


def _short(number: int, least: int) -> int | None:
    return least - number if number < least else None


def _more(number: int | None, what: str) -> str:
    return f"{number:,} more {what}{'s' * (number != 1)}" if number else ""
