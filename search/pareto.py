"""The Pareto front of accuracy against cost, and the area that it dominates."""

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


def non_dominated(points: Sequence[tuple[Sequence[float], float]]) -> list[int]:
    """Return the indices of the points (costs, value) that none dominates, cheapest first.

    As `pareto_front`, for one cost or several; cheapest in the first one that differs.
    """
    order = sorted(range(len(points)), key=lambda i: (*points[i][0], -points[i][1], i))
    front: list[int] = []
    for index in order:  # what dominates a point comes before it, and so does its equal
        costs, value = points[index]
        if not any(_covers(points[other], costs, value) for other in front):
            front.append(index)
    return front


def _covers(point: tuple[Sequence[float], float], costs: Sequence[float], value: float) -> bool:
    """Say whether the point costs no more in anything and is worth no less."""
    return point[1] >= value and all(a <= b for a, b in zip(point[0], costs, strict=True))


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that the points (cost, value) dominate, as seen from the reference.

    The reference costs more and is worth less than what counts; other points add nothing.
    """
    inside = [point for point in points if point[0] < reference[0] and point[1] > reference[1]]
    front = [inside[index] for index in pareto_front(inside)]
    area, end = 0.0, reference[0]
    for cost, value in reversed(front):
        area += (end - cost) * (value - reference[1])
        end = cost
    return area
