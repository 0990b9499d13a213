"""From test scores by seed and case to differences with intervals, and to tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from experiment import Arm, Bench, Budget, Runner, label

from archspec.memory import training_memory
from archspec.paired import hierarchical_bootstrap, holm

_DRAWS = 4000
_BISECTIONS = 12


@dataclass(frozen=True)
class Row:
    """One arm on one bench; `test` has the test metric of every seed."""

    bench: str
    arm: str
    metric: str
    rate: float
    screened: dict[float, float]
    macs: int
    flops: int
    params: int
    widths: list[int]
    memory: int
    step_seconds: float
    validation: list[float]
    test: list[float]
    test_dice: list[float]
    matrix: np.ndarray

    def tree(self) -> dict[str, Any]:
        """Return what the result file holds."""
        content = {key: value for key, value in vars(self).items() if key != "matrix"}
        return {**content, "screened": {f"{k:g}": v for k, v in self.screened.items()}}


@dataclass(frozen=True)
class Difference:
    """The test metric of `a` less that of `b`, with its 95 % interval over seeds and cases."""

    bench: str
    a: str
    b: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def rows(bench: Bench, budget: Budget, runner: Runner) -> list[Row]:
    """Return the arms of a bench that have test scores for at least one seed."""
    found = []
    for arm in bench.arms:
        rate = runner.choose(bench, arm, budget)
        if rate is not None:
            found += _row(bench, budget, runner, arm, rate)
    return found


def _row(
    bench: Bench,
    budget: Budget,
    runner: Runner,
    arm: Arm,
    rate: float,
) -> list[Row]:
    tested, validation, seconds, job = [], [], [], None
    for seed in range(budget.seeds):
        job = runner.job(bench, arm, budget, rate=rate, seed=seed)
        training = job.training()
        cases, points = runner.tables.tested(training), runner.tables.points(training)
        if cases and points:
            last = max(points, key=lambda point: point.step)
            scores = {**last.scores, "mean": last.dice}
            tested.append(cases)
            validation.append(scores[bench.metric])
            seconds.append(last.seconds / last.step)
    if job is None or not tested:
        return []
    names = sorted(tested[0])
    matrix = np.array([[cases[name][bench.metric] for name in names] for cases in tested])
    planned = job.planned()
    return [
        Row(
            bench=label(bench),
            arm=arm.name,
            metric=bench.metric,
            rate=rate,
            screened=runner.screened(bench, arm, budget),
            macs=training.macs,
            flops=training.flops,
            params=training.params,
            widths=[stage.out.channels for stage in planned.stages],
            memory=training_memory(planned, batch=budget.batch_size).total,
            step_seconds=mean(seconds),
            validation=validation,
            test=[float(line.mean()) for line in matrix],
            test_dice=[mean(cases[name]["mean"] for name in names) for cases in tested],
            matrix=matrix,
        )
    ]


def differences(
    table: Sequence[Row], pairs: Sequence[tuple[str, str]], *, seed: int
) -> list[Difference]:
    """Return a - b for the pairs of arms on every bench; p is Holm's over all of them."""
    by_name = {(row.bench, row.arm): row for row in table}
    found = []
    for bench in dict.fromkeys(row.bench for row in table):
        for a, b in pairs:
            if (bench, a) in by_name and (bench, b) in by_name:
                first, second = by_name[bench, a].matrix, by_name[bench, b].matrix
                interval = hierarchical_bootstrap(first, second, seed, draws=_DRAWS)
                p = p_value(first, second, seed)
                found.append(Difference(bench, a, b, interval.mean, interval.low, interval.high, p))
    corrected = holm([difference.p for difference in found])
    return [
        Difference(**{**vars(difference), "p_holm": p})
        for difference, p in zip(found, corrected, strict=True)
    ]


def p_value(first: np.ndarray, second: np.ndarray, seed: int) -> float:
    """Return the smallest level at which the interval leaves out 0; at least 1 / draws."""
    low, high = 1 / _DRAWS, 1.0

    def excludes(alpha: float) -> bool:
        found = hierarchical_bootstrap(first, second, seed, level=1 - alpha, draws=_DRAWS)
        return found.excludes_zero

    if excludes(low):
        return low
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if excludes(middle) else (middle, high)
    return high


def text(table: Sequence[Row], found: Sequence[Difference]) -> str:
    """Return the tables for a terminal."""
    lines = []
    for bench in dict.fromkeys(row.bench for row in table):
        own = [row for row in table if row.bench == bench]
        metric = {"side": "side accuracy", "mean": "Dice"}[own[0].metric]
        lines += [
            f"{bench}: test {metric}, mean over seeds and cases",
            f"{'':16}{'MMAC':>8}{'params':>10}{'MiB':>8}{'ms/step':>9}{'lr':>8}"
            f"{'valid.':>8}{'test':>8}{'lowest':>8}{'highest':>8}{'Dice':>7}",
        ]
        lines += [_line(row) for row in own] + [""]
        lines += [_compared(item) for item in found if item.bench == bench] + [""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    return (
        f"{row.arm:16}{row.macs / 1e6:8.1f}{row.params:10,}{row.memory / 2**20:8.0f}"
        f"{1e3 * row.step_seconds:9.0f}{row.rate:8g}{mean(row.validation):8.3f}"
        f"{mean(row.test):8.3f}{min(row.test):8.3f}{max(row.test):8.3f}{mean(row.test_dice):7.3f}"
    )


def _compared(found: Difference) -> str:
    verdict = "differs" if found.p_holm < 0.05 else "no difference shown"
    return (
        f"  {found.a} - {found.b}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], "
        f"p {found.p_holm:.4f} (Holm): {verdict}"
    )
