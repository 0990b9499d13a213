"""Compare searches by the hypervolume that they had reached when so much was spent.

Hypervolumes are shares of that of the front of the whole table. Only networks trained to the end
count. Intervals are 95 % percentile bootstrap intervals over seeds, which all methods share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from search_replay import Replay, Table

SHARES = (1 / 6, 1 / 3, 1 / 2, 1.0)
_ROUNDING = 1e-9
_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A figure of all seeds with its bootstrap interval; None is infinite: never."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, form: str = ".3f") -> str:
        """Return all three."""
        shown = ["never" if x is None else f"{x:{form}}" for x in vars(self).values()]
        return f"{shown[0]} [{shown[1]}, {shown[2]}]"


Steps = list[tuple[float, float]]
"""(spent, hypervolume) whenever it grew, from (0, 0) on."""


def growth(table: Table, run: Replay, budget: float) -> Steps:
    """Return how the run's hypervolume grew; what ended beyond the budget does not count."""
    steps, names = [(0.0, 0.0)], []
    for spent, name in run.done:
        if spent > budget:
            break
        names.append(name)
        reached = table.share(names)
        if reached > steps[-1][1]:
            steps.append((spent, reached))
    return steps


def reached_at(steps: Steps, spent: float) -> float:
    """Return the hypervolume when so much was spent."""
    return max(reached for when, reached in steps if when <= spent + _ROUNDING)


def spent_until(steps: Steps, target: float) -> float:
    """Return what had been spent when the target was reached; infinite where it never was."""
    return min((when for when, reached in steps if reached >= target - _ROUNDING), default=np.inf)


def crossing(grid: np.ndarray, rows: np.ndarray) -> float:
    """Return the first share of the budget at which the mean of the curves reaches the mean target.

    A row is a seed: its curve on the grid of shares, then its target.
    """
    curve, target = rows[:, :-1].mean(0), rows[:, -1].mean()
    reached = np.flatnonzero(curve >= target - _ROUNDING)
    return float(grid[reached[0]]) if len(reached) else np.inf


def upper_median(values: np.ndarray) -> float:
    """Return the median, of an even number the upper one, so that infinite values may be there."""
    return float(np.sort(values)[len(values) // 2])


def bootstrap(values: np.ndarray, figure: Callable[[np.ndarray], Any]) -> Interval:
    """Return a figure of the seeds, which are the first axis of `values`."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(values), size=(_DRAWS, len(values)))
    drawn = np.sort([float(figure(values[pick])) for pick in picks])
    ends = drawn[int(0.025 * _DRAWS)], drawn[int(0.975 * _DRAWS)]  # infinite ones among them
    found = [float(figure(values)), *map(float, ends)]
    return Interval(*(x if np.isfinite(x) else None for x in found))


def compare_searches(
    table: Table, runs: dict[str, Sequence[Replay]], budget: float, *, base: str
) -> dict[str, dict[str, Any]]:
    """Return the figures of every method: a run per seed, the same seeds for all."""
    curves = {name: [growth(table, run, budget) for run in many] for name, many in runs.items()}
    targets = np.array([reached_at(steps, budget) for steps in curves[base]])
    return {
        name: {
            **_hypervolumes(curves[name], targets, budget),
            "reaches_base": _reaches(curves[name], targets, budget),
            **_counts(table, many, budget),
        }
        for name, many in runs.items()
    }


def _hypervolumes(curves: list[Steps], targets: np.ndarray, budget: float) -> dict[str, Any]:
    by_share = {
        f"{share:.3f}": np.array([reached_at(steps, share * budget) for steps in curves])
        for share in SHARES
    }
    ends = by_share["1.000"]
    return {
        "hypervolume": {
            share: vars(bootstrap(reached, np.mean)) for share, reached in by_share.items()
        },
        "by_seed": [round(float(end), 5) for end in ends],
        "minus_base": vars(bootstrap(ends - targets, np.mean)),
    }


def _reaches(curves: list[Steps], targets: np.ndarray, budget: float) -> dict[str, Any]:
    shares = np.array(
        [spent_until(steps, end) / budget for steps, end in zip(curves, targets, strict=True)]
    )
    grid = np.linspace(0, 1, 241)
    rows = [[reached_at(steps, share * budget) for share in grid] for steps in curves]
    return {
        "median_share": vars(bootstrap(shares, upper_median)),
        "by_seed": [round(float(x), 4) if np.isfinite(x) else None for x in shares],
        "seeds_never": int(np.isinf(shares).sum()),
        "share_of_mean_curve": vars(
            bootstrap(np.column_stack([rows, targets]), lambda rows: crossing(grid, rows))
        ),
    }


def _counts(table: Table, runs: Sequence[Replay], budget: float) -> dict[str, Any]:
    front = set(table.front)
    lost = [len(front & {name for _, name in run.stopped}) for run in runs]
    started = [len(run.done) + len(run.stopped) for run in runs]
    return {
        "trained": float(np.mean([len(run.done) for run in runs])),
        "stopped": float(np.mean([len(run.stopped) for run in runs])),
        "share_of_table_started": float(np.mean(started)) / len(table.flops),
        "most_spent": max(run.spent for run in runs),
        "runs_dry": sum(run.spent < budget for run in runs),
        "runs_that_stopped_a_front_network": sum(map(bool, lost)),
        "front_networks_stopped_per_run": float(np.mean(lost)),
    }
