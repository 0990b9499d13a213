"""From test scores by seed and case to differences with intervals, and to tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from experiment import Arm, Bench, Budget, Runner, label

from archspec.costs.memory import training_memory
from archspec.scoring.statistics import bootstrap_p, hierarchical_bootstrap, holm

_DRAWS = 4000

METRICS = {"side": "side accuracy", "mean": "Dice", "surface": "surface Dice"}


@dataclass(frozen=True)
class Row:
    """One arm on one bench; `test` has the test metric of every seed.

    `matrices` has every metric by which arms are compared, (seeds, cases).
    """

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
    test_surface: list[float]
    matrices: dict[str, np.ndarray]

    def tree(self) -> dict[str, Any]:
        """Return what the result file holds."""
        content = {key: value for key, value in vars(self).items() if key != "matrices"}
        return {**content, "screened": {f"{k:g}": v for k, v in self.screened.items()}}


@dataclass(frozen=True)
class MetricDifference:
    """A test metric of `a` less that of `b`, with its 95 % interval over seeds and cases."""

    bench: str
    metric: str
    a: str
    b: str
    seeds: int
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
    matrices = {
        metric: np.array([[cases[name][metric] for name in names] for cases in tested])
        for metric in (bench.metric, *bench.also)
    }
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
            test=[float(line.mean()) for line in matrices[bench.metric]],
            test_dice=[mean(cases[name]["mean"] for name in names) for cases in tested],
            test_surface=[float(line.mean()) for line in matrices.get("surface", ())],
            matrices=matrices,
        )
    ]


def differences(
    table: Sequence[Row], pairs: Sequence[tuple[str, str]], *, seed: int
) -> list[MetricDifference]:
    """Return a - b for the pairs of arms on every bench; p is Holm's over all of them."""
    by_name = {(row.bench, row.arm): row for row in table}
    found = []
    for bench in dict.fromkeys(row.bench for row in table):
        for a, b in pairs:
            if (bench, a) in by_name and (bench, b) in by_name:
                found += _differences(by_name[bench, a], by_name[bench, b], seed)
    corrected = holm([difference.p for difference in found])
    return [
        MetricDifference(**{**vars(difference), "p_holm": p})
        for difference, p in zip(found, corrected, strict=True)
    ]


def _differences(a: Row, b: Row, seed: int) -> Iterator[MetricDifference]:
    for metric, first in a.matrices.items():
        second = b.matrices[metric]
        interval = hierarchical_bootstrap(first, second, seed, draws=_DRAWS)
        p = bootstrap_p(first, second, seed, draws=_DRAWS)
        yield MetricDifference(
            a.bench, metric, a.arm, b.arm, len(first), interval.mean, interval.low, interval.high, p
        )


def text(table: Sequence[Row], found: Sequence[MetricDifference]) -> str:
    """Return the tables for a terminal."""
    lines = []
    for bench in dict.fromkeys(row.bench for row in table):
        own = [row for row in table if row.bench == bench]
        lines += [
            f"{bench}: test {METRICS[own[0].metric]}, mean over seeds and cases",
            f"{'':16}{'MMAC':>8}{'params':>10}{'MiB':>8}{'ms/step':>9}{'lr':>8}"
            f"{'valid.':>8}{'test':>8}{'lowest':>8}{'highest':>8}{'Dice':>7}"
            + (f"{'surface':>9}" if own[0].test_surface else ""),
        ]
        lines += [_line(row) for row in own] + [""]
        lines += [_compared(item) for item in found if item.bench == bench] + [""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    return (
        f"{row.arm:16}{row.macs / 1e6:8.1f}{row.params:10,}{row.memory / 2**20:8.0f}"
        f"{1e3 * row.step_seconds:9.0f}{row.rate:8g}{mean(row.validation):8.3f}"
        f"{mean(row.test):8.3f}{min(row.test):8.3f}{max(row.test):8.3f}{mean(row.test_dice):7.3f}"
        + (f"{mean(row.test_surface):9.3f}" if row.test_surface else "")
    )


def _compared(found: MetricDifference) -> str:
    verdict = "differs" if found.p_holm < 0.05 else "no difference shown"
    verdict = "one seed cannot tell" if found.seeds == 1 else verdict
    return (
        f"  {found.a} - {found.b}, {METRICS[found.metric]}: "
        f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], "
        f"p {found.p_holm:.4f} (Holm): {verdict}"
    )
