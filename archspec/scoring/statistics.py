"""Paired statistics: is one network's score above another's by more than noise?

Scores are paired by case: column k of both arrays is the same case. One training per network says
nothing about the noise of training; several seeds and `hierarchical_bootstrap` do.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

ScoreArray = NDArray[np.float64]
_CHUNK = 2000
_BISECTIONS = 12


class Interval(NamedTuple):
    """A mean difference a - b and the ends of its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether both ends lie on one side of 0."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    scores_a: ArrayLike, scores_b: ArrayLike, seed: int, *, level: float = 0.95, draws: int = 9999
) -> Interval:
    """Return the mean of a - b over cases, with its BCa interval, cases drawn in pairs.

    The ends are NaN below two cases; where all differences are equal they are that difference.

    Raises:
        ValueError: not two equally long vectors, or a score that is not finite.
    """
    difference = _difference(scores_a, scores_b)
    mean = float(difference.mean())
    if len(difference) < 2:
        return Interval(mean, math.nan, math.nan)
    if np.ptp(difference) == 0:
        return Interval(mean, mean, mean)
    from scipy.stats import bootstrap

    found = bootstrap(
        (difference,),
        np.mean,
        n_resamples=draws,
        confidence_level=level,
        method="BCa",
        vectorized=True,
        batch=_CHUNK,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def hierarchical_bootstrap(
    scores_a: ArrayLike, scores_b: ArrayLike, seed: int, *, level: float = 0.95, draws: int = 9999
) -> Interval:
    """Return the mean of a - b with a percentile interval that covers seed and case noise.

    Scores are (seeds, cases). Each draw takes cases, the same ones for both networks, and
    trainings, separately for each network, because a seed means different weights in each; the
    numbers of seeds may differ. One unit less than there are is drawn of each kind, which makes the
    variance of a mean unbiased (with all of them it is short by the factor 1 - 1/n, a third for
    three seeds). With a single seed only case noise is covered. Noise that belongs to a training
    and a case together counts more than once, so the interval errs on the wide side there. With few
    trainings it is still short: where seeds vary as much as cases do, simulated intervals of 95 %
    over 16 cases held the truth in 93 % of runs with five seeds, 90 % with three, 84 % with two
    and 39 % with one.

    Source: rescaled draws, Rao and Wu, JASA 83 (1988) 231; rows and columns drawn separately,
    Owen, Ann. Appl. Stat. 1 (2007) 386.

    Raises:
        ValueError: not (seeds, cases), other cases, or a score that is not finite.
    """
    a, b = _matrix(scores_a), _matrix(scores_b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} and {b.shape[1]} cases: scores must be paired by case")
    mean = float(a.mean() - b.mean())
    if a.shape[1] < 2:
        return Interval(mean, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        cases = _weights(rng, a.shape[1], size)
        means = [
            np.einsum("rs,sc,rc->r", _weights(rng, len(x), size), x, cases, optimize=True)
            for x in (a, b)
        ]
        drawn[start : start + size] = means[0] - means[1]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def bootstrap_p(scores_a: ArrayLike, scores_b: ArrayLike, seed: int, *, draws: int) -> float:
    """Return the smallest level at which the interval of `hierarchical_bootstrap` leaves out 0.

    At least 1 / draws; NaN below two cases, where there is no interval.

    Raises:
        ValueError: as `hierarchical_bootstrap`.
    """

    def excludes(alpha: float) -> bool:
        found = hierarchical_bootstrap(scores_a, scores_b, seed, level=1 - alpha, draws=draws)
        return found.excludes_zero

    if _matrix(scores_a).shape[1] < 2:
        return math.nan
    low, high = 1 / draws, 1.0
    if excludes(low):
        return low
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if excludes(middle) else (middle, high)
    return high


def wilcoxon(scores_a: ArrayLike, scores_b: ArrayLike) -> float:
    """Return the two-sided p of the signed-rank test over cases; ties are left out.

    1 where no case differs. Below six cases that differ p cannot fall under .05.

    Raises:
        ValueError: not two equally long vectors, or a score that is not finite.
    """
    difference = _difference(scores_a, scores_b)
    if not difference.any():
        return 1.0
    from scipy.stats import wilcoxon as signed_rank

    return float(signed_rank(difference[difference != 0]).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for having tested them all, in their order; NaN is left out.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    tested = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(sorted(tested, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def cases_needed(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    *,
    margin: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Return how many cases a paired t-test needs to see a difference of this size, or a margin.

    n = ((z(1 - alpha/2) + z(power)) sd / size)^2 + z(1 - alpha/2)^2 / 2, rounded up, two-sided,
    with the sd of the differences found here, and for the size their mean or the `margin`; None
    where they have no mean or no spread.

    Source: Guenther, The American Statistician 35 (1981) 243.

    Raises:
        ValueError: not two equally long vectors, or a score that is not finite.
    """
    difference = _difference(scores_a, scores_b)
    if len(difference) < 2 or np.ptp(difference) == 0:
        return None
    size = float(difference.mean()) if margin is None else margin
    ratio = float(difference.std(ddof=1)) / abs(size or math.nan)
    if math.isnan(ratio):
        return None
    from scipy.stats import norm

    critical = float(norm.ppf(1 - alpha / 2))
    needed = ((critical + float(norm.ppf(power))) * ratio) ** 2 + critical**2 / 2
    return math.ceil(needed) if math.isfinite(needed) else None


def _difference(scores_a: ArrayLike, scores_b: ArrayLike) -> ScoreArray:
    """Return a - b by case."""
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(
            f"scores must be two vectors over the same cases, got {a.shape}, {b.shape}"
        )
    difference: ScoreArray = a - b
    if not np.isfinite(difference).all():
        raise ValueError("scores must be finite; leave out the cases that have none")
    return difference


def _matrix(scores: ArrayLike) -> ScoreArray:
    """Return scores (seeds, cases)."""
    matrix: ScoreArray = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"scores must be (seeds, cases), got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("scores must be finite; leave out the cases that have none")
    return matrix


def _weights(rng: np.random.Generator, units: int, draws: int) -> ScoreArray:
    """Return the share of each unit in each draw, (draws, units)."""
    taken = max(units - 1, 1)
    counts = rng.multinomial(taken, np.full(units, 1 / units), size=draws)
    weights: ScoreArray = counts / taken
    return weights
