"""The rule alone: each answer, at its bounds, and what would decide where nothing does."""

import math

import numpy as np
import pytest

from archspec.scoring.statistics import Interval
from search.verdict import rule
from search.verdict.answers import Figures, answer
from search.verdict.rule import Needed

MARGIN = 0.01
RNG = np.random.default_rng(0)


def figures(interval: Interval, **others: object) -> Figures:
    known = {
        **{"candidate": 3, "rival": 1, "mixer": None, "cost": "FLOPs", "margin": MARGIN},
        **{"memory": 0.4, "needed": Needed(34, 2), "unit": "person", "units": 40, "seeds": 3},
    }
    return Figures(difference=interval, **{**known, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "saves", "want"),
    [
        (-0.009, 0.02, True, "this spec"),
        (-0.009, 0.02, False, "keep"),
        (-0.009, -0.001, True, "this spec"),
        (0.001, 0.02, False, "this spec"),
        (0.0, 0.02, False, "keep"),
        (-0.01, 0.02, True, "cannot say"),
        (-0.01 + 1e-12, 0.02, True, "cannot say"),
        (-0.01 + 1e-6, 0.02, True, "this spec"),
        (-0.03, 0.0, True, "cannot say"),
        (-0.03, -1e-12, True, "cannot say"),
        (-0.03, -0.001, True, "keep"),
        (-0.01, -0.01, True, "keep"),
        (-0.03, 0.02, True, "cannot say"),
    ],
)
def test_an_end_that_touches_a_bound_has_not_passed_it(
    low: float, high: float, saves: bool, want: str
) -> None:
    interval = Interval((low + high) / 2, low, high)
    assert rule.of_network(interval, MARGIN, saves=saves) == want
    assert answer(figures(interval, memory=0.4 if saves else 1.0)).answer == want


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (-0.001, 0.007, "not shown"),
        (0.0, 0.007, "not shown"),
        (0.001, 0.007, "shown"),
        (-0.007, 0.0, "not shown"),
        (-0.007, -0.001, "it costs Dice"),
    ],
)
def test_what_a_mixer_is_worth(low: float, high: float, want: str) -> None:
    found = answer(figures(Interval(0.003, low, high), mixer="tom"))
    assert found.answer == "mixer" and found.sentence.endswith(f": {want}")
    assert (found.needed is not None) == (want == "not shown")


def test_the_sentences() -> None:
    told = [
        answer(figures(Interval(0.004, -0.002, 0.010))),
        answer(figures(Interval(0.004, -0.002, 0.010), memory=1.2, cost="latency")),
        answer(figures(Interval(-0.02, -0.03, -0.01))),
        answer(figures(Interval(0.0, -0.03, 0.03))),
        answer(figures(Interval(0.003, -0.001, 0.007), mixer="tom")),
        answer(figures(Interval(0.0, math.nan, math.nan), needed=Needed(5, 1, at_least=True))),
    ]
    assert [one.sentence for one in told] == [
        "this spec: trial 3 is non-inferior to the width curve at its FLOPs: +0.4 [-0.2, +1.0] "
        "Dice points, margin 1, and 0.40 x the memory",
        "keep nnU-Net's network: trial 3, the best spec found, is non-inferior to, and at 1.20 x "
        "the memory saves nothing over, the width curve at its latency: +0.4 [-0.2, +1.0] Dice "
        "points, margin 1",
        "keep nnU-Net's network: trial 3, the best spec found, is worse than the width curve at "
        "its FLOPs: -2.0 [-3.0, -1.0] Dice points, margin 1",
        "these data cannot say; 34 more persons or 2 more seeds would",
        "your mixer (tom) is worth +0.3 [-0.1, +0.7] Dice points over convolution: not shown",
        "these data cannot say; any answer needs 5 more persons and 1 more seed",
    ]


def scores(seeds: int, units: int, *, of_units: float, of_seeds: float) -> np.ndarray:
    noise = of_units * RNG.standard_normal((1, units))
    return 0.7 + noise + of_seeds * RNG.standard_normal((seeds, 1))


def test_needed_persons_and_seeds_narrow_the_interval_enough() -> None:
    """With so many the standard error is what power 0.8 asks for, and with one less it is not."""
    a = scores(3, 20, of_units=0.05, of_seeds=0.004)
    b = np.full((3, 20), 0.7) + 0.004 * RNG.standard_normal((3, 1))
    found = rule.needed(a, b, MARGIN, mixer=True)
    assert found.units is not None and found.seeds is None, "no seeds mend the noise of persons"
    of_units = float((a.mean(0) - b.mean(0)).var(ddof=1))
    of_seeds = float(a.mean(1).var(ddof=1) + b.mean(1).var(ddof=1)) / 3
    allowed = (MARGIN / (1.959964 + 0.841621)) ** 2
    assert of_units / (20 + found.units) + of_seeds <= allowed
    assert of_units / (20 + found.units - 1) + of_seeds > allowed


def test_persons_do_not_mend_the_noise_of_seeds() -> None:
    b = np.full((3, 40), 0.7) + np.linspace(0, 0.05, 3)[:, None]
    a = np.full((3, 40), 0.7) + np.linspace(0, 0.001, 40)
    found = rule.needed(a, b, MARGIN, mixer=True)
    assert found.units is None and found.seeds is not None
    assert found.text("person") == f"{found.seeds} more seeds would"


def test_where_neither_alone_would_both_have_to_grow() -> None:
    b = np.full((3, 20), 0.7) + np.linspace(0, 0.05, 3)[:, None]
    a = np.full((3, 20), 0.7) + np.linspace(0, 0.2, 20)
    found = rule.needed(a, b, MARGIN, mixer=True)
    assert (found.units, found.seeds) == (None, None) and found.times is not None
    assert found.text("case") == f"{found.times:.1f} times as many cases and seeds would"


@pytest.mark.parametrize(
    ("seeds", "units", "want"),
    [(1, 40, (None, 1)), (3, 5, (1, None)), (1, 1, (5, 1))],
)
def test_too_few_are_told_and_answer_nothing(
    seeds: int, units: int, want: tuple[int | None, int | None]
) -> None:
    a = scores(seeds, units, of_units=0.001, of_seeds=0.001)
    found = rule.needed(a, a - 0.1, MARGIN, mixer=False)
    assert (found.units, found.seeds) == want and found.at_least
    for mixer in (None, "tom"):
        interval = Interval(0.1, 0.09, 0.11)
        told = answer(figures(interval, needed=found, units=units, seeds=seeds, mixer=mixer))
        assert told.answer == "cannot say"


def test_scores_between_two_networks_have_their_mean() -> None:
    low, high = scores(3, 8, of_units=0.05, of_seeds=0.01), scores(3, 8, of_units=0.1, of_seeds=0)
    found = rule.blended(low, high, 0.25)
    assert found.mean() == pytest.approx(0.75 * low.mean() + 0.25 * high.mean())
    assert rule.blended(low, high, 0).tolist() == low.tolist()
