"""The Pareto front of accuracy against cost."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, value) that none dominates, cheapest first.

    A point is dominated by one that costs no more and is worth no less, and differs in one of
    them; of equal points the first stays.
    """
    best = float("-inf")
    front = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front
