"""An answer in words, from the figures that it rests on."""

import math
from dataclasses import dataclass

from archspec.scoring.statistics import Interval
from search.verdict import rule
from search.verdict.rule import Answer, Needed

POINTS = 100.0
"""Dice points of a Dice of 1."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What an answer is given on.

    `candidate` and `rival` are trials, `memory` is that of the one over that of the other, `cost`
    the word for what they cost alike.
    """

    candidate: int
    rival: int
    mixer: str | None
    cost: str
    margin: float
    difference: Interval
    memory: float
    needed: Needed
    unit: str
    units: int
    seeds: int

    @property
    def enough(self) -> bool:
        return not self.needed.at_least


@dataclass(frozen=True)
class Told:
    """An answer, the sentence for it, why it is that, and what would decide where nothing does."""

    answer: Answer
    sentence: str
    reason: str
    needed: Needed | None = None


def answer(found: Figures) -> Told:
    """Return the one answer that the rule gives."""
    if not found.enough:
        units = counted(found.units, f"test {found.unit}")
        least = f"an interval is believed from {rule.MIN_UNITS} and {rule.MIN_SEEDS} on"
        return _cannot_say(found, f"from {units} and {counted(found.seeds, 'seed')}: {least}")
    return _of_network(found) if found.mixer is None else _of_mixer(found)


def _of_network(found: Figures) -> Told:
    decided = rule.of_network(found.difference, found.margin, saves=found.memory < 1)
    if decided == "cannot say":
        return _cannot_say(found, "the interval reaches from the margin or below it to 0 or above")
    ratio = f"{found.memory:.2f} x the memory"
    inside = f"the whole interval lies above -{POINTS * found.margin:g}"
    if decided == "this spec":
        return Told(
            decided,
            f"this spec: trial {found.candidate} is non-inferior to {_curve(found)}: "
            f"{_difference(found)}, and {ratio}",
            inside,
        )
    if rule.above(found.difference.low, -found.margin):
        how = f"is non-inferior to, and at {ratio} saves nothing over,"
        why = f"{inside} but not above 0, and no memory is saved"
    else:
        how, why = "is worse than", "the whole interval lies below 0, and not above the margin"
    return Told(
        decided,
        f"keep nnU-Net's network: trial {found.candidate}, the best spec found, {how} "
        f"{_curve(found)}: {_difference(found)}",
        why,
    )


def _of_mixer(found: Figures) -> Told:
    shown = rule.worth(found.difference)
    reason = (
        f"trial {found.candidate}, the best network whose mixers are {found.mixer} alone, less "
        f"trial {found.rival}, the best of convolutions that costs at most as much {found.cost}; "
        f"{found.memory:.2f} x the memory"
    )
    needed = found.needed if shown == "not shown" else None
    if needed is not None:
        more = needed.text(found.unit)
        reason += f". Of a difference of {POINTS * found.margin:g} points {more} tell"
    sentence = (
        f"your mixer ({found.mixer}) is worth {points(found.difference)} Dice points over "
        f"convolution: {shown}"
    )
    return Told("mixer", sentence, reason, needed)


def _cannot_say(found: Figures, why: str) -> Told:
    sentence = f"these data cannot say; {found.needed.text(found.unit)}"
    against = "convolution" if found.mixer is not None else _curve(found)
    reason = f"trial {found.candidate} less {against}: {_difference(found)}; {why}"
    return Told("cannot say", sentence, reason, found.needed)


def _curve(found: Figures) -> str:
    return f"the width curve at its {found.cost}"


def _difference(found: Figures) -> str:
    return f"{points(found.difference)} Dice points, margin {POINTS * found.margin:g}"


def points(found: Interval) -> str:
    """Return a difference in Dice points with its interval, as far as there is one."""
    mean = f"{POINTS * found.mean:+.1f}"
    if math.isnan(found.low):
        return mean
    return f"{mean} [{POINTS * found.low:+.1f}, {POINTS * found.high:+.1f}]"


def counted(number: int, what: str) -> str:
    """Return a number of things."""
    return f"{number:,} {what}{'s' * (number != 1)}"
