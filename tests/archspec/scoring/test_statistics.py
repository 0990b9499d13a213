"""Paired statistics, held to exact values and to what they promise on simulated scores."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from archspec.scoring.statistics import (
    Interval,
    bootstrap_p,
    cases_needed,
    hierarchical_bootstrap,
    holm,
    paired_bootstrap,
    wilcoxon,
)

SCORES = np.random.default_rng(7).normal(0.8, 0.05, (3, 12))


def simulated(
    rng: np.random.Generator, seeds: int, cases: int, gain: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores (seeds, cases) of two networks that share nothing but the case's difficulty."""
    difficulty = rng.normal(0.8, 0.1, cases)
    return tuple(  # type: ignore[return-value]
        difficulty
        + mean
        + rng.normal(0, 0.02, cases)
        + rng.normal(0, 0.02, (seeds, 1))
        + rng.normal(0, 0.01, (seeds, cases))
        for mean in (gain, 0.0)
    )


@pytest.mark.parametrize(
    ("raw", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02], [0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.03, math.nan, 0.02], [0.04, math.nan, 0.04]),
        ([], []),
    ],
)
def test_holm(raw: list[float], corrected: list[float]) -> None:
    assert holm(raw) == pytest.approx(corrected, nan_ok=True)


def test_wilcoxon_of_few_cases_is_exact() -> None:
    """Eight wins of eight: two of 2^8 sign patterns are as extreme; six the least for .05."""
    b = np.arange(9.0)
    assert wilcoxon(b[1:] ** 2 + 1, b[1:]) == pytest.approx(2 / 2**8)
    assert wilcoxon([*(b[1:] ** 2 + 1), 5.0], [*b[1:], 5.0]) == pytest.approx(2 / 2**8)  # a tie
    assert wilcoxon(b[:5] ** 2 + 1, b[:5]) == 2 / 2**5 > 0.05 > 2 / 2**6
    assert wilcoxon(b, b) == 1.0


def test_paired_bootstrap_is_scipy_s_over_the_differences() -> None:
    a, b = SCORES[:2]
    found = paired_bootstrap(a, b, 3)
    direct = stats.bootstrap((a - b,), np.mean, rng=np.random.default_rng(3), batch=2000)
    assert found == pytest.approx((np.mean(a - b), *direct.confidence_interval))
    assert found == paired_bootstrap(a, b, 3) != paired_bootstrap(a, b, 4)
    assert paired_bootstrap(a, b, 3, level=0.5).low > found.low


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_what_a_case_adds_to_both_changes_nothing(spread: float) -> None:
    """Pairs are kept: a case's difficulty cancels, however large."""
    difficulty = np.linspace(0, spread, 12)
    for bootstrap, a, b in (
        (paired_bootstrap, SCORES[0], SCORES[1]),
        (hierarchical_bootstrap, SCORES, SCORES[:2] - 0.1),
    ):
        plain, harder = bootstrap(a, b, 0), bootstrap(a + difficulty, b + difficulty, 0)
        assert harder == pytest.approx(plain, abs=1e-12)


def test_degenerate_scores() -> None:
    equal = SCORES[0]
    assert paired_bootstrap(equal, equal, 0) == Interval(0, 0, 0)
    assert not paired_bootstrap(equal, equal, 0).excludes_zero
    assert math.isnan(paired_bootstrap([0.5], [0.4], 0).low)
    assert math.isnan(hierarchical_bootstrap([[0.5], [0.6]], [[0.4]], 0).low)
    assert not paired_bootstrap([0.5], [0.4], 0).excludes_zero
    assert cases_needed(equal, equal) is cases_needed([0.5], [0.4]) is None
    assert cases_needed([1.0, 0.0], [0.0, 1.0]) is None


@pytest.mark.parametrize(
    ("a", "b"),
    [([0.5, 0.6], [0.5]), ([[0.5, 0.6]], [[0.5, 0.6]]), ([math.nan, 1], [0.5, 1]), ([], [])],
)
def test_vectors_that_are_no_pairs(a: list[float], b: list[float]) -> None:
    for function in (wilcoxon, cases_needed, lambda x, y: paired_bootstrap(x, y, 0)):
        with pytest.raises(ValueError, match="scores must be"):
            function(a, b)


@pytest.mark.parametrize(
    ("a", "b"), [([0.5], [0.5]), ([[0.5, 0.6]], [[0.5]]), ([[math.inf, 1]], [[0.5, 1]])]
)
def test_matrices_that_are_no_pairs(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="scores must be"):
        hierarchical_bootstrap(a, b, 0)


def test_hierarchical_is_the_mean_s_interval_of_one_seed() -> None:
    """One training each: what is left is case noise, as paired by case."""
    found = hierarchical_bootstrap(SCORES[:1], SCORES[1:2], 0, draws=20000)
    difference = SCORES[0] - SCORES[1]
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    assert found.mean == pytest.approx(difference.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_seed_noise_widens_the_interval() -> None:
    """Seeds that differ by 0.1 and cases that do not: the error of two means of three seeds."""
    seeds = np.array([[0.7], [0.8], [0.9]])
    quiet = np.linspace(0, 1e-6, 30)
    found = hierarchical_bootstrap(seeds + quiet, seeds - 0.1 + quiet, 0, draws=20000)
    drawn = np.random.default_rng(0).choice([0.7, 0.8, 0.9], (2, 20000, 2)).mean(axis=2)
    assert drawn.var(axis=1) == pytest.approx(0.1**2 / 3, rel=0.05)  # s^2 / n: unbiased
    low, high = np.quantile(drawn[0] - drawn[1] + 0.1, [0.025, 0.975])
    assert found == pytest.approx((0.1, low, high), abs=1e-3)
    assert not found.excludes_zero


@pytest.mark.parametrize(("seeds", "at_least"), [(3, 0.85), (5, 0.9)])
def test_hierarchical_interval_covers_the_true_difference(seeds: int, at_least: float) -> None:
    rng, gain, runs = np.random.default_rng(1), 0.02, 300
    hits = 0
    for run in range(runs):
        found = hierarchical_bootstrap(*simulated(rng, seeds, 16, gain), run, draws=999)
        hits += found.low <= gain <= found.high
    assert at_least <= hits / runs <= 0.99


def test_a_single_seed_hides_the_noise_of_training() -> None:
    """Why the output of a comparison of two trainings has to say so."""
    rng, runs = np.random.default_rng(1), 200
    found = [
        hierarchical_bootstrap(*simulated(rng, 1, 16, 0.0), run, draws=999) for run in range(runs)
    ]
    assert sum(interval.excludes_zero for interval in found) / runs > 0.3


def test_paired_interval_covers_the_true_difference() -> None:
    rng, gain, runs = np.random.default_rng(2), 0.02, 300
    hits = 0
    for run in range(runs):
        difference = rng.normal(gain, 0.05, 20)
        found = paired_bootstrap(difference, np.zeros(20), run, draws=999)
        hits += found.low <= gain <= found.high
    assert 0.89 <= hits / runs <= 0.98


@pytest.mark.parametrize("ratio", [0.3, 0.6, 1.2])
def test_cases_needed_give_80_percent_power(ratio: float) -> None:
    rng = np.random.default_rng(4)
    sample = rng.normal(size=50)
    sample = ratio + (sample - sample.mean()) / sample.std(ddof=1)
    needed = cases_needed(sample, np.zeros(50))
    assert needed is not None
    p = stats.ttest_1samp(rng.normal(ratio, 1, (20000, needed)), 0, axis=1).pvalue
    assert 0.79 <= np.mean(p < 0.05) <= 0.84


def test_p_of_the_bootstrap_says_what_its_intervals_say() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 0.1, (3, 12)), rng.normal(0, 0.1, (3, 12))
    found = {shift: bootstrap_p(a + shift, b, 0, draws=500) for shift in (0.0, 0.05, 0.5)}
    for shift, p in found.items():
        for level in (0.95, 0.5):
            interval = hierarchical_bootstrap(a + shift, b, 0, level=level, draws=500)
            assert interval.excludes_zero == (p < 1 - level)
    assert found[0.5] == 1 / 500 < found[0.05] < found[0.0] <= 1
    assert math.isnan(bootstrap_p(a[:, :1], b[:, :1], 0, draws=500))
