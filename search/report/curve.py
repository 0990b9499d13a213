"""What nnU-Net planned, by width: the line that a front has to beat, and how it stands to it."""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from search.report.trials import ReportTrial, front_of


@dataclass(frozen=True)
class WidthCurve:
    """The anchors of one plans file, whole and narrowed, cheapest first.

    `points` were trained to the end, the best of those of equal FLOPs; `others` were not.
    """

    plans: str
    points: tuple[ReportTrial, ...]
    others: tuple[ReportTrial, ...]

    def dice_at(self, gflops: float) -> float | None:
        """Return its Dice there, linear in log FLOPs between points; None beyond its ends."""
        costs = [point.gflops or 0.0 for point in self.points]
        values = [point.dice or 0.0 for point in self.points]
        if not costs or not costs[0] <= gflops <= costs[-1]:
            return None
        right = bisect.bisect_left(costs, gflops)
        if costs[right] == gflops:
            return values[right]
        low, high = costs[right - 1], costs[right]
        share = math.log(gflops / low) / math.log(high / low)
        return values[right - 1] + share * (values[right] - values[right - 1])

    def label(self, trial: ReportTrial) -> str:
        """Return what a point is called beside the name of the plans: whole, or how narrow."""
        prefix = f"{self.plans}, "
        return trial.network.removeprefix(prefix) if trial.network.startswith(prefix) else "whole"


@dataclass(frozen=True)
class Standing:
    """How the front stands to a curve, at equal FLOPs and of one training each.

    `above` and `below` have the trials and by how much Dice; `cheaper` and `dearer` are beyond the
    curve's ends, `own` on the curve and on the front. Below is also what equals it.
    """

    curve: WidthCurve
    above: tuple[tuple[int, float], ...]
    below: tuple[tuple[int, float], ...]
    cheaper: tuple[int, ...]
    dearer: tuple[int, ...]
    own: tuple[int, ...]

    @classmethod
    def of(cls, curve: WidthCurve, trials: Sequence[ReportTrial]) -> "Standing":
        """Compare the front among the trials."""
        numbers = {trial.number for trial in (*curve.points, *curve.others)}
        front = [trial for trial in front_of(trials) if trial.gflops]
        found = [
            (trial, trial.gflops or 0.0, curve.dice_at(trial.gflops or 0.0))
            for trial in front
            if trial.number not in numbers
        ]
        differences = [
            (trial.number, (trial.dice or 0.0) - line)
            for trial, _, line in found
            if line is not None
        ]
        first = curve.points[0].gflops or 0.0 if curve.points else 0.0
        beyond = [(trial.number, cost < first) for trial, cost, line in found if line is None]
        return cls(
            curve,
            above=tuple(one for one in differences if one[1] > 0),
            below=tuple(one for one in differences if one[1] <= 0),
            cheaper=tuple(number for number, cheap in beyond if cheap),
            dearer=tuple(number for number, cheap in beyond if not cheap),
            own=tuple(trial.number for trial in front if trial.number in numbers),
        )

    def text(self) -> str:
        """Return it in words, without a claim about what exceeds the noise of seeds."""
        curve = self.curve
        if not curve.points:
            return f"{curve.plans} by width: no line to beat, {_untrained(curve)}"
        first, last = curve.points[0].gflops, curve.points[-1].gflops
        parts = [
            _by_how_much(self.above, "above it"),
            _by_how_much(self.below, "not above it"),
            _are(self.cheaper, "cheaper than all of it"),
            _are(self.dearer, "dearer than all of it"),
            _are(self.own, "part of it"),
            _untrained(curve),
        ]
        told = "; ".join(filter(None, parts))
        return (
            f"{curve.plans} by width, {first:.3g} to {last:.3g} GFLOPs, and the front at equal "
            f"FLOPs (log-linear between points, one training each): {told}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plans": self.curve.plans,
            "points": [
                {
                    "trial": point.number,
                    "network": point.network,
                    "gflops": point.gflops,
                    "dice": point.dice,
                }
                for point in self.curve.points
            ],
            "front": [
                {"trial": number, "difference": difference}
                for number, difference in sorted((*self.above, *self.below))
            ],
            "cheaper": list(self.cheaper),
            "dearer": list(self.dearer),
        }


def width_curves(trials: Iterable[ReportTrial]) -> list[WidthCurve]:
    """Return the curve of every plans file that an anchor of the run names."""
    found: dict[str, list[ReportTrial]] = {}
    for trial in trials:
        if trial.plans is not None and trial.state not in ("lost", "not new"):
            found.setdefault(trial.plans, []).append(trial)
    return [_curve(plans, own) for plans, own in found.items()]


def _curve(plans: str, trials: Sequence[ReportTrial]) -> WidthCurve:
    best: dict[float, ReportTrial] = {}
    for trial in trials:
        if trial.done and trial.gflops and trial.dice is not None:
            known = best.get(trial.gflops)
            if known is None or trial.dice > (known.dice or 0.0):
                best[trial.gflops] = trial
    points = tuple(best[cost] for cost in sorted(best))
    return WidthCurve(plans, points, tuple(trial for trial in trials if not trial.done))


def _by_how_much(found: Sequence[tuple[int, float]], where: str) -> str:
    told = ", ".join(f"{number} ({difference:+.3f})" for number, difference in found)
    return f"{_trials(len(found))} {told} {_lie(len(found))} {where}" if found else ""


def _are(numbers: Sequence[int], what: str) -> str:
    told = ", ".join(map(str, numbers))
    return f"{_trials(len(numbers))} {told} {_be(len(numbers))} {what}" if numbers else ""


def _untrained(curve: WidthCurve) -> str:
    told = ", ".join(f"{curve.label(trial)}: {trial.state}" for trial in curve.others)
    return f"not trained to the end: {told}" if told else ""


def _trials(number: int) -> str:
    return "trial" if number == 1 else "trials"


def _lie(number: int) -> str:
    return "lies" if number == 1 else "lie"


def _be(number: int) -> str:
    return "is" if number == 1 else "are"
