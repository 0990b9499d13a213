"""Which differences between trained networks exceed the noise of seeds and cases."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archspec.scoring.statistics import ScoreArray, bootstrap_p, hierarchical_bootstrap, holm
from search.trials.cases import CaseScores
from search.trials.recorded import from_record, to_record

LEVEL = 0.05
_DRAWS = 4000


@dataclass(frozen=True)
class DiceDifference:
    """The mean Dice of `a` less that of `b`, with its 95 % interval over seeds and cases (persons).

    `p_holm` is corrected for all differences that were asked for together. Ends and p are NaN where
    there are fewer than two of them.
    """

    a: str
    b: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float = math.nan

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DiceDifference":
        """Read it; an end or a p that is null is NaN."""
        known = {key: math.nan if value is None else value for key, value in content.items()}
        return from_record(cls, known)

    def to_json(self) -> dict[str, Any]:
        """Return it with null for NaN, which JSON does not have, and with the verdict."""
        known = {key: None if value != value else value for key, value in to_record(self).items()}
        return {**known, "exceeds_noise": self.exceeds_noise}

    @property
    def exceeds_noise(self) -> bool:
        return self.p_holm < LEVEL

    @property
    def has_interval(self) -> bool:
        """Say whether there were cases enough for one."""
        return not math.isnan(self.p_holm)

    def text(self, scale: float = 1.0, digits: int = 3) -> str:
        """Return the difference and its interval, times the scale."""
        if math.isnan(self.low):
            return f"{scale * self.mean:+.{digits}f}"
        ends = f"{scale * self.low:+.{digits}f}, {scale * self.high:+.{digits}f}"
        return f"{scale * self.mean:+.{digits}f} [{ends}]"


@dataclass(frozen=True)
class Entrant:
    """A network that was trained with some seeds: its scores by case, one entry per seed."""

    name: str
    seeds: list[CaseScores]

    def scored(self, score: Callable[[Mapping[str, float]], float]) -> "Entrant":
        """Return it with this score of each case in place of the mean over classes."""
        seeds = [
            {case: {**scores, "mean": score(scores)} for case, scores in one.items()}
            for one in self.seeds
        ]
        return replace(self, seeds=seeds)


def shared_cases(entrants: Sequence[Entrant]) -> list[str]:
    """Return the cases that have a mean Dice in every training of all entrants.

    A case without foreground has none where none was predicted; counting it for some only would
    compare different cases.
    """
    trainings = [seed for entrant in entrants for seed in entrant.seeds]
    names = sorted(set.intersection(*(set(one) for one in trainings))) if trainings else []
    return [case for case in names if all(math.isfinite(one[case]["mean"]) for one in trainings)]


def matrix(entrant: Entrant, cases: Sequence[str]) -> ScoreArray:
    """Return the mean Dice, (seeds, cases)."""
    rows = [[seed[case]["mean"] for case in cases] for seed in entrant.seeds]
    return np.array(rows, dtype=np.float64).reshape(len(entrant.seeds), len(cases))


def by_person(scores: ScoreArray, cases: Sequence[str], persons: Mapping[str, str]) -> ScoreArray:
    """Return the mean of each person's cases, (seeds, persons), from (seeds, cases)."""
    owners = np.array([persons[case] for case in cases])
    columns = [scores[:, owners == person].mean(axis=1) for person in sorted(set(owners))]
    return np.stack(columns, axis=1)


def dice_differences(
    pairs: Sequence[tuple[Entrant, Entrant]],
    *,
    seed: int,
    persons: Mapping[str, str] | None = None,
) -> list[DiceDifference]:
    """Return a - b for each pair, on the cases that all of them share; by persons, where told.

    A pair with an entrant that has no training, or without a case, is left out.
    """
    everyone = [entrant for pair in pairs for entrant in pair if entrant.seeds]
    cases = shared_cases(everyone)
    found = []
    for a, b in pairs if cases else ():
        if a.seeds and b.seeds:
            first, second = matrix(a, cases), matrix(b, cases)
            if persons is not None:
                first, second = (by_person(one, cases, persons) for one in (first, second))
            interval = hierarchical_bootstrap(first, second, seed, draws=_DRAWS)
            p = bootstrap_p(first, second, seed, draws=_DRAWS)
            found.append(DiceDifference(a.name, b.name, *interval, p))
    corrected = holm([difference.p for difference in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]
