"""The confirmatory questions and the exploratory comparisons, from test cases."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from program import Records
from standings import Standing, standing

from archspec.scoring.statistics import Interval, bootstrap_p, hierarchical_bootstrap, holm

_DRAWS = 4000


@dataclass(frozen=True)
class Compared:
    """The test Dice of `a` less that of `b`, with its 95 % interval over persons x seeds.

    `p` is NaN where a comparison is exploratory.
    """

    question: str
    a: Standing
    b: Standing
    interval: Interval
    p: float = math.nan
    p_holm: float = math.nan

    def verdict(self, margin: float) -> str:
        """Return the protocol's words for it."""
        mean, low, high = self.interval
        if min(len(self.a.test), len(self.b.test)) < 2:
            return "one seed"
        if -margin < low and high < margin:
            return "no difference that matters"
        differs = self.p_holm < 0.05 if not math.isnan(self.p) else self.interval.excludes_zero
        if differs:
            return f"{'higher' if mean > 0 else 'lower'}"
        return "not decided"


def confirmatory(records: Records) -> list[Compared] | str:
    """Return the five comparisons with Holm's p, or what is missing for them."""
    selection = records.decided("selection")
    if selection is None:
        return "the selection is not on record yet, and no test case is looked at before"
    asked = [
        *((f"i, cap {unet}", best, unet) for unet, best in selection["caps"].items()),
        ("ii, ToM - convolution", selection["tom"], selection["conv"]),
        ("iii, sum - concat", *(selection["pair"] or (None, None))),
    ]
    needed = records.protocol.tree["margin"]["seeds"]
    found = []
    for question, first, second in asked:
        if first is None or second is None:
            continue
        a, b = standing(records, first), standing(records, second)
        if a is None or b is None or min(len(a.test), len(b.test)) < needed:
            return f"{question}: {first} and {second} need {needed} seeds on record each"
        found.append(_compare(question, a, b))
    tested = [replace(one, p=bootstrap_p(one.a.test, one.b.test, 0, draws=_DRAWS)) for one in found]
    corrected = holm([one.p for one in tested])
    return [replace(one, p_holm=p) for one, p in zip(tested, corrected, strict=True)]


def exploratory(records: Records, standings: Mapping[str, Standing]) -> list[Compared]:
    """Return the comparisons of the protocol that have no p, as far as they are on record."""
    asked = [
        ("Mamba early - late", "mamba-attention-sum", "attention-mamba-sum"),
        *(("FUE - none", f"{m}-fue", f"{m}-concat") for m in _mixers(records)),
        *(("MLP - sum", f"{m}-mlp", f"{m}-sum") for m in _mixers(records)),
        *(("concat - sum", f"{m}-concat", f"{m}-sum") for m in _mixers(records)),
        *(
            ("instance - layer norm", f"instance-{m}-sum", f"{m}-sum")
            for m in ("conv", "tom", "attention")
        ),
    ]
    return [
        _compare(question, standings[a], standings[b])
        for question, a, b in asked
        if a in standings and b in standings and standings[a].test.size and standings[b].test.size
    ]


def in_smallest(
    records: Records, compared: Iterable[Compared], persons: Sequence[int]
) -> list[Compared]:
    """Return comparisons again over some persons only, without p."""
    found = []
    for one in compared:
        a = standing(records, one.a.network, persons=persons)
        b = standing(records, one.b.network, persons=persons)
        if a is not None and b is not None and a.test.size and b.test.size:
            found.append(_compare(one.question, a, b))
    return found


def curve_at(curve: Sequence[Standing], latency: float) -> float | None:
    """Return the validation Dice of the width curve at a latency, None outside of it.

    Linear in the logarithm of the latency between two neighbours.
    """
    points = sorted((one.latency, one.validation[0]) for one in curve if 0 in one.validation)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= latency <= x1 and x0 < x1:
            share = math.log(latency / x0) / math.log(x1 / x0)
            return y0 + share * (y1 - y0)
    return None


def tau_of_long(records: Records) -> tuple[Interval, int] | None:
    """Return Kendall's tau between the orders after the usual and after the long training.

    On validation cases, seed 0, with its 95 % percentile interval over persons; and the number of
    networks in it. None below three.
    """
    from scipy.stats import kendalltau

    step = next(s for s in records.protocol.tree["program"] if s["step"] == "long")
    done = records.rungs.matching(steps=step["steps"], rung=step["steps"])
    pairs = []
    for row in done:
        short = {name: row[name] for name in ("network", "seed", "lr")}
        first = _by_person(records, **short, steps=records.protocol.tree["training"]["steps"])
        if first:
            pairs.append((first, _by_person(records, **short, steps=step["steps"])))
    if len(pairs) < 3:
        return None
    persons = sorted(pairs[0][0])
    usual, long = (
        np.array([[pair[k][person] for person in persons] for pair in pairs]) for k in (0, 1)
    )

    def tau(weights: NDArray[Any]) -> float:
        return float(kendalltau(usual @ weights, long @ weights).statistic)

    rng = np.random.default_rng(0)
    uniform = np.full(len(persons), 1 / len(persons))
    drawn = [tau(counts) for counts in rng.multinomial(len(persons), uniform, size=_DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(tau(uniform), float(low), float(high)), len(pairs)


def _by_person(records: Records, **training: Any) -> dict[int, float]:
    """Return a training's validation Dice by person."""
    found: dict[int, list[float]] = {}
    for row in records.validation.matching(**training):
        found.setdefault(int(row["person"]), []).append(float(row["ema"]))
    return {person: fmean(values) for person, values in found.items()}


def _mixers(records: Records) -> list[str]:
    mixers: dict[str, str] = records.protocol.tree["rates"]["of_mixer"]
    return list(mixers)


def _compare(question: str, a: Standing, b: Standing) -> Compared:
    interval = hierarchical_bootstrap(a.test, b.test, 0, draws=_DRAWS)
    return Compared(question, a, b, interval)
