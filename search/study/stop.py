"""When a trial is stopped at a rung, judged beside the trials that reached it before.

Costs are known before training, so only Dice is uncertain, and only a network that costs no more
can push another one off the front. Optuna's pruners refuse two objectives.
"""

import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from search.space.settings import SearchSettings

Costs = tuple[float, ...]


class Stopper(Protocol):
    """Decide at rungs. A trial keeps its number for as long as it lives, resumed or not.

    `costs` are log10 of what the network costs, one or several.
    """

    def decide(self, rung: int, dice: float, costs: Costs, trial: int) -> bool:
        """Say whether the trial goes on from rung 0, 1, ..., and remember its score there."""

    def remember(self, rung: int, dice: float, costs: Costs, trial: int) -> None:
        """Remember a score that was decided upon before."""


class Recorded:
    """The scores at every rung: (log10 of the costs, Dice) by trial."""

    def __init__(self) -> None:
        self._scores: dict[int, dict[int, tuple[Costs, float]]] = defaultdict(dict)

    def remember(self, rung: int, dice: float, costs: Costs, trial: int) -> None:
        self._scores[rung][trial] = (costs, dice)

    def others(self, rung: int, trial: int) -> list[tuple[Costs, float]]:
        """Return the scores of all other trials at the rung."""
        return [score for number, score in self._scores[rung].items() if number != trial]


class NeverStop:
    """Train every trial to the end."""

    def decide(self, rung: int, dice: float, costs: Costs, trial: int) -> bool:
        return True

    def remember(self, rung: int, dice: float, costs: Costs, trial: int) -> None:
        pass


class ParetoHalving(Recorded):
    """Stop what is behind the rung's front and not among the best of its neighbours in cost.

    A trial goes on while fewer than `evidence` trials cost no more, while its Dice is within the
    rung's margin of the best of those, or while it is in the top 1/eta of the trials within
    `window` of log10 of each of its costs. `margins` belong to the rungs before the last one,
    counted from the end, since they shrink with the training that is still to come.
    """

    def __init__(
        self,
        num_rungs: int,
        *,
        eta: int = 3,
        evidence: int = 5,
        window: float = 0.25,
        margins: Sequence[float] = (0.03, 0.02, 0.01),
    ) -> None:
        super().__init__()
        self.num_rungs = num_rungs
        self.eta = eta
        self.evidence = evidence
        self.window = window
        self.margins = tuple(margins)

    def margin(self, rung: int) -> float:
        """Return the Dice by which a trial may lag behind the rung's front."""
        rungs_left = self.num_rungs - 1 - rung
        return self.margins[max(len(self.margins) - rungs_left, 0)]

    def decide(self, rung: int, dice: float, costs: Costs, trial: int) -> bool:
        if rung >= self.num_rungs - 1:
            return True
        others = self.others(rung, trial)
        self.remember(rung, dice, costs, trial)
        cheaper = [d for c, d in others if all(map(operator.le, c, costs))]
        if len(cheaper) < self.evidence or dice >= max(cheaper) - self.margin(rung):
            return True
        near = [d for c, d in others if _near(c, costs, self.window)]
        if len(near) < self.evidence:
            near = cheaper
        return dice >= float(np.quantile(near, 1 - 1 / self.eta))


def _near(a: Costs, b: Costs, window: float) -> bool:
    return all(abs(x - y) <= window for x, y in zip(a, b, strict=True))


def make_stopper(settings: SearchSettings) -> Stopper:
    """Return the stopper that the settings name."""
    if settings.stopper == "none":
        return NeverStop()
    eta = settings.eta if settings.eta > 1 else 3  # evenly spaced rungs tell no share to keep
    return ParetoHalving(len(settings.rung_steps), eta=eta)
