"""The stopper that ours is compared with."""

import random

import pytest
from moasha import NonDominatedHalving, nondominated_ranks


def test_ranks_are_ranks_and_not_the_sorted_order() -> None:
    """T11: the order of indices, [1, 2, 0], is not the rank of each point."""
    assert nondominated_ranks([(3, 3), (1, 1), (2, 2)]) == [2, 0, 1]


@pytest.mark.parametrize("seed", range(50))
def test_a_dominated_point_ranks_behind_what_dominates_it(seed: int) -> None:
    rng = random.Random(seed)
    points = [(float(rng.randint(0, 5)), float(rng.randint(0, 5))) for _ in range(20)]
    ranks = nondominated_ranks(points)
    assert sorted(ranks) == list(range(20))
    for a, rank_a in zip(points, ranks, strict=True):
        for b, rank_b in zip(points, ranks, strict=True):
            if a[0] <= b[0] and a[1] <= b[1] and a != b:
                assert rank_a < rank_b


def test_nondominated_halving_keeps_a_third() -> None:
    stopper = NonDominatedHalving(4)
    rng = random.Random(0)
    kept = [stopper.decide(0, rng.random(), (8 + rng.random(),), trial) for trial in range(300)]
    assert 80 < sum(kept) < 130
    assert stopper.decide(0, 2.0, (7.0,), 300), "nothing is better in either"
    assert not stopper.decide(0, -1.0, (10.0,), 301)
