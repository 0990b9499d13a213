"""From the scores of all trainings to ranks, differences and what they would need."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from archspec.scoring.statistics import cases_needed, hierarchical_bootstrap, holm
from search.bench.arena import Arena
from search.bench.result import ALPHA, POWER, Bench, Standing, Versus
from search.bench.rows import Row
from search.bench.settings import BenchSettings, BenchTask
from search.retrain.noise import Entrant, dice_differences, matrix
from search.trials.cases import CaseScores

_DRAWS = 4000


@dataclass(frozen=True)
class Found:
    """The trainings that ended, and why others did not."""

    rows: list[Row]
    failed: dict[str, str]


class DatasetScores:
    """The scores of one dataset, by unit: of folds that every network ended with every seed.

    A case counts where all of them have a score; one without the class, in which none was
    predicted, has none, and would compare different cases. `folds` are those that count,
    `left_out` the cases that do not.
    """

    def __init__(self, task: BenchTask, arena: Arena, rows: Sequence[Row]) -> None:
        self._task, self.name = task, arena.dataset.name
        self._trained = {
            (row.network, row.fold, row.seed): row.cases for row in rows if row.dataset == self.name
        }
        self.folds = [
            fold
            for fold in task.folds
            if all((n, fold, s) in self._trained for n in task.labels for s in task.all_seeds)
        ]
        self._usable = {fold: self._scored_by_all(fold) for fold in self.folds}
        self.left_out = sum(
            len(self._trained[task.labels[0], fold, task.all_seeds[0]]) - len(cases)
            for fold, cases in self._usable.items()
        )

    def entrants(self, folds: Sequence[int]) -> list[Entrant]:
        """Return each network's scores by unit, the mean over its cases, one entry per seed."""
        labels, seeds = self._task.labels, self._task.all_seeds
        return [
            Entrant(label, [self._by_unit(label, seed, folds) for seed in seeds])
            for label in labels
        ]

    def _scored_by_all(self, fold: int) -> list[str]:
        score = self._task.comparing.score
        own = [
            self._trained[label, fold, seed]
            for label in self._task.labels
            for seed in self._task.all_seeds
        ]
        return [
            case
            for case in own[0]
            if all(case in one and math.isfinite(one[case][score]) for one in own)
        ]

    def _by_unit(self, label: str, seed: int, folds: Sequence[int]) -> CaseScores:
        comparing = self._task.comparing
        scores = (
            (case, self._trained[label, fold, seed][case][comparing.score])
            for fold in folds
            for case in self._usable[fold]
        )
        means = comparing.persons.means(self.name, scores)
        return {unit: {"mean": mean} for unit, mean in means.items()}


def compare(task: BenchTask, found: Found, notes: Sequence[str]) -> Bench:
    """Compare every network with the baseline, and rank all of them."""
    scores = {arena.dataset.name: DatasetScores(task, arena, found.rows) for arena in task.arenas}
    standings = [one for arena in task.arenas for one in _standings(task, arena, scores, found)]
    differences = corrected([one for own in scores.values() for one in _versus(task, own)])
    blocks = [own.entrants([fold]) for own in scores.values() for fold in own.folds]
    means = [{one.name: _mean(one) for one in block if one.seeds[0]} for block in blocks]
    ranked = [block for block in means if block]
    return Bench(
        settings=BenchSettings.of(task),
        baseline=task.labels[0],
        score=task.comparing.score,
        margin=task.comparing.margin,
        unit=task.comparing.persons.unit,
        num_units={name: _num_units(own) for name, own in scores.items()},
        standings=tuple(standings),
        ranks=mean_ranks(ranked) if len(task.labels) > 1 else {},
        num_blocks=len(ranked),
        differences=tuple(differences),
        recipes=_recipes(task),
        failed=found.failed,
        notes=(*notes, *_notes(task, scores)),
    )


def mean_ranks(blocks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each name's mean rank over blocks of scores, 1 for the highest.

    Names that tie in a block share the mean of the ranks that they take.
    """
    ranks: dict[str, list[float]] = {}
    for block in blocks:
        for name, score in block.items():
            above = sum(other > score for other in block.values())
            equal = sum(other == score for other in block.values())
            ranks.setdefault(name, []).append(above + (equal + 1) / 2)
    return {name: statistics.fmean(own) for name, own in ranks.items()}


def _standings(
    task: BenchTask, arena: Arena, scores: Mapping[str, DatasetScores], found: Found
) -> list[Standing]:
    name = arena.dataset.name
    own, costs = scores[name], arena.costs()
    standings = []
    for entrant in own.entrants(own.folds):
        seconds = [
            row.seconds
            for row in found.rows
            if (row.dataset, row.network) == (name, entrant.name) and row.seconds is not None
        ]
        cost, units = costs[entrant.name], sorted(entrant.seeds[0])
        by_seed: list[float] = []
        mean, low, high = math.nan, math.nan, math.nan
        if units:
            values = matrix(entrant, units)
            by_seed = [float(value) for value in values.mean(axis=1)]
            nothing = np.zeros((1, len(units)))
            mean, low, high = hierarchical_bootstrap(values, nothing, task.host.seed, draws=_DRAWS)
        standings.append(
            Standing(
                dataset=name,
                network=entrant.name,
                gflops=cost.flops / 1e9,
                params=cost.params,
                seconds=statistics.median(seconds) if seconds else None,
                mean=_known(mean),
                low=_known(low),
                high=_known(high),
                by_seed=tuple(by_seed),
            )
        )
    return standings


def _versus(task: BenchTask, own: DatasetScores) -> list[Versus]:
    """Return each network less the baseline, not yet corrected for all datasets."""
    baseline, *others = own.entrants(own.folds)
    units = sorted(baseline.seeds[0])
    pairs = [(one, baseline) for one in others]
    found = []
    for (one, _), difference in zip(
        pairs if units else (), dice_differences(pairs, seed=task.host.seed), strict=True
    ):
        a, b = (matrix(entrant, units).mean(axis=0) for entrant in (one, baseline))
        margin = task.comparing.margin
        needed = cases_needed(a, b, margin=margin, alpha=ALPHA, power=POWER)
        found.append(Versus(own.name, difference, len(units), needed))
    return found


def corrected(found: list[Versus]) -> list[Versus]:
    found_p = holm([one.difference.p for one in found])
    return [
        replace(one, difference=replace(one.difference, p_holm=p))
        for one, p in zip(found, found_p, strict=True)
    ]


def _mean(entrant: Entrant) -> float:
    return float(matrix(entrant, sorted(entrant.seeds[0])).mean())


def _num_units(own: DatasetScores) -> int:
    return len(own.entrants(own.folds)[0].seeds[0])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _recipes(task: BenchTask) -> dict[str, str]:
    """Return optimizer, rate and schedule of every network; they are the same on all datasets."""
    found = {}
    for label, one in task.arenas[0].planned.items():
        recipe = one.spec.training
        found[label] = f"{recipe.optimizer}, lr {recipe.lr:g}, {recipe.schedule}"
    return found


def _notes(task: BenchTask, scores: Mapping[str, DatasetScores]) -> list[str]:
    notes = []
    if len(set(_recipes(task).values())) > 1:
        notes.append("recipes differ: a difference is that of a network with its recipe")
    for name, own in scores.items():
        lost = [str(fold) for fold in task.folds if fold not in own.folds]
        if lost:
            notes.append(f"{name}: fold {', '.join(lost)} left out, where trainings are missing")
        if own.left_out:
            notes.append(
                f"{name}: {own.left_out} cases left out, in which some network has no Dice"
            )
    return notes
