"""The Pareto front against brute force."""

import random

import pytest

from search.front import pareto_front


def _dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@pytest.mark.parametrize("seed", range(200))
def test_front_equals_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    # few distinct values, so that ties and equal points happen
    points = [(float(rng.randint(1, 6)), rng.randint(0, 6) / 6) for _ in range(rng.randint(0, 15))]
    expected = {p for p in points if not any(_dominates(q, p) for q in points)}
    front = [points[i] for i in pareto_front(points)]
    assert set(front) == expected
    assert len(front) == len(expected), "equal points are listed once"
    assert front == sorted(front)
