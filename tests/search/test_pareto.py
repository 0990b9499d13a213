"""The Pareto front against brute force, and its hypervolume against two other counts."""

import random

import numpy as np
import optuna
import pytest
from optuna._hypervolume import compute_hypervolume
from optuna.trial import TrialState, create_trial

from search.pareto import hypervolume, pareto_front

Point = tuple[float, float]
STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def _dominates(a: Point, b: Point) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def _points(rng: random.Random, least: int = 0) -> list[Point]:
    """Return points of few distinct values, so that ties and equal points happen."""
    count = rng.randint(least, 15)
    return [(float(rng.randint(1, 6)), rng.randint(0, 6) / 6) for _ in range(count)]


@pytest.mark.parametrize("seed", range(200))
def test_front_equals_brute_force(seed: int) -> None:
    """T8."""
    points = _points(random.Random(seed))
    expected = {p for p in points if not any(_dominates(q, p) for q in points)}
    front = [points[i] for i in pareto_front(points)]
    assert set(front) == expected
    assert len(front) == len(expected), "equal points are listed once"
    assert front == sorted(front)


@pytest.mark.parametrize("seed", range(30))
def test_front_of_a_study_equals_optunas(seed: int) -> None:
    """T8: members that are infeasible, stopped or failed are not on it."""
    rng = random.Random(seed)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for cost, dice in _points(rng):
        state = rng.choice(STATES)
        values = [dice, cost] if state == TrialState.COMPLETE else None
        constraints = {"constraints:gflops": rng.choice([-1.0, -1.0, 1.0])}
        study.add_trial(create_trial(state=state, values=values, system_attrs=constraints))
    feasible = [
        (t.values[1], t.values[0])
        for t in study.trials
        if t.state == TrialState.COMPLETE and all(v <= 0 for v in t.constraints.values())
    ]
    ours = {feasible[i] for i in pareto_front(feasible)}
    assert ours == {(t.values[1], t.values[0]) for t in study.best_trials}


@pytest.mark.parametrize("seed", range(30))
def test_hypervolume_equals_optunas_and_grows_with_every_point(seed: int) -> None:
    """T9."""
    points, reference = _points(random.Random(seed), least=1), (7.0, -0.1)
    losses = np.array([(cost, -dice) for cost, dice in points])
    expected = compute_hypervolume(losses, np.array([reference[0], -reference[1]]))
    assert hypervolume(points, reference) == pytest.approx(expected)
    steps = [hypervolume(points[:count], reference) for count in range(len(points) + 1)]
    assert steps == sorted(steps)
    assert steps[0] == 0


@pytest.mark.parametrize("seed", range(3))
def test_hypervolume_equals_a_monte_carlo_estimate(seed: int) -> None:
    """T9: to 1e-3; points outside the reference count for nothing."""
    rng = np.random.default_rng(seed)
    points = [tuple(map(float, p)) for p in rng.uniform(0, 1.2, size=(12, 2))]
    cells = np.stack(np.meshgrid(np.arange(1000), np.arange(1000)), axis=-1).reshape(-1, 2)
    thrown = (cells + rng.uniform(size=cells.shape)) / 1000  # one in every cell: less noise
    hit = np.zeros(len(thrown), dtype=bool)
    for cost, value in points:
        hit |= (thrown[:, 0] >= cost) & (thrown[:, 1] <= value)
    assert hypervolume(points, (1.0, 0.0)) == pytest.approx(hit.mean() + _above(points), abs=1e-3)


def _above(points: list[Point]) -> float:
    """Return the area above value 1, where nothing is thrown."""
    return hypervolume([(cost, value) for cost, value in points if value > 1], (1.0, 1.0))
