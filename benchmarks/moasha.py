"""MO-ASHA, a stopper to compare ours with; `archspec search` does not have it.

In the replay of search_efficiency.py it stopped so many that all 20 runs used the table of networks
up, and with the space's anchors first it ended far below plain TPE.
"""

import math
from collections.abc import Sequence

from search.study.stop import Costs, Recorded


class NonDominatedHalving(Recorded):
    """Stop what ranks below the top 1/eta of its rung by non-dominated sorting.

    Source: Schmucker et al., "Multi-objective asynchronous successive halving", 2021. Ranks are
    true ranks; in the released Syne Tune the sorted order of indices stands in their place.
    """

    def __init__(self, num_rungs: int, *, eta: int = 3) -> None:
        super().__init__()
        self.num_rungs = num_rungs
        self.eta = eta

    def decide(self, rung: int, dice: float, costs: Costs, trial: int) -> bool:
        if rung >= self.num_rungs - 1:
            return True
        others = self.others(rung, trial)
        self.remember(rung, dice, costs, trial)
        scores = [*others, (costs, dice)]
        rank = nondominated_ranks([(c[0], -d) for c, d in scores])[-1]
        return len(scores) < self.eta or rank < len(scores) / self.eta


def nondominated_ranks(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the rank of every point, 0 for the best, where both coordinates are minimised.

    Front by front; within a front each next point is the one farthest from those ranked before.
    """
    ranks = [0] * len(points)
    left, rank = set(range(len(points))), 0
    while left:
        front = _front(points, left)
        left -= set(front)
        for index in _spread(points, front):
            ranks[index] = rank
            rank += 1
    return ranks


def _front(points: Sequence[tuple[float, float]], left: set[int]) -> list[int]:
    """Return the points that no other dominates, equal ones included, by their first coordinate."""
    best, front = (math.inf, math.inf), []
    for index in sorted(left, key=lambda i: (points[i], i)):
        point = points[index]
        if point[1] < best[1] or point == best:
            best = point
            front.append(index)
    return front


def _spread(points: Sequence[tuple[float, float]], front: list[int]) -> list[int]:
    """Return the front's points, the cheapest first, then always the farthest from the others."""
    order, left = [front[0]], front[1:]
    gaps = {i: math.dist(points[i], points[front[0]]) for i in left}
    while left:
        farthest = max(left, key=lambda i: gaps[i])
        left.remove(farthest)
        order.append(farthest)
        gaps = {i: min(gaps[i], math.dist(points[i], points[farthest])) for i in left}
    return order
