"""Run arms of an experiment: choose each arm's learning rate, train its seeds, test once.

Every finished training is in the table of curves and, where tested, in the table of test scores; a
second run skips what is there. Arms of an experiment differ in one thing and share all others:
data, steps, batches, recipe, seeds.
"""

import csv
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trainings
from curves import CurvePoint, Training, append_points, read_curves
from trainings import CaseScores, Job, Outcome

_CASE_COLUMNS = ("trial_hash", "name", "task", "level", "cases", "seed", "steps", "case", "scores")


@dataclass(frozen=True, eq=False)
class Arm:
    """A candidate: a spec's tree, whose learning rate is still to be chosen.

    `rate_of` names the arm of a paired ablation whose rate this one takes over.
    """

    name: str
    tree: dict[str, Any]
    rate_of: str = ""


@dataclass(frozen=True, eq=False)
class Bench:
    """Arms on one level of one task. `decided` are the labels whose side is scored.

    `setting` says in tables what else tells this bench from others, such as a budget of MACs;
    `tolerance` (mm) asks for the surface Dice of the test cases. Arms are compared by `metric`,
    and by what `also` names.
    """

    experiment: str
    dataset: str
    task: str
    level: str
    decided: tuple[str, ...]
    arms: tuple[Arm, ...]
    fold: int = 0
    setting: str = ""
    tolerance: float | None = None
    also: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Return what the arms are compared by."""
        return "side" if self.decided else "mean"


@dataclass(frozen=True)
class Budget:
    """How long everything trains. Rates are chosen at rung `choose_at` of `rungs`."""

    seeds: int
    steps: int
    rates: tuple[float, ...]
    batch_size: int = 2
    rungs: int = 4
    choose_at: int = 3

    @property
    def rung_steps(self) -> tuple[int, ...]:
        steps = {max(self.steps // 3**power, 1) for power in range(self.rungs)}
        return tuple(sorted(steps))


@dataclass
class Tables:
    """What was trained so far, on disk and in memory."""

    curves_file: Path
    cases_file: Path
    curves: dict[Any, list[CurvePoint]] = field(default_factory=dict)
    cases: dict[Any, CaseScores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for training, points in read_curves(self.curves_file).items():
            self.curves[training.key] = points
        for row in _read_cases(self.cases_file):
            self.cases.setdefault(_case_key(row), {})[row["case"]] = json.loads(row["scores"])

    def points(self, training: Training) -> list[CurvePoint]:
        """Return the rungs on record, none where there is none."""
        return self.curves.get(training.key, [])

    def tested(self, training: Training) -> CaseScores:
        """Return the test scores by case, none where the training was not tested."""
        return self.cases.get(_case_key(vars(training)), {})

    def has(self, job: Job, training: Training) -> bool:
        """Say whether the job's last rung, and its test where it has one, are on record."""
        steps = [point.step for point in self.points(training)]
        reached = job.rung_steps[job.stop_after - 1] in steps
        return reached and (not job.test or bool(self.tested(training)))

    def add(self, outcome: Outcome) -> None:
        """Put an outcome on record; the test scores first, for a training is over with its rung."""
        training = outcome.training
        if training is None:
            return
        if outcome.test:
            _append_cases(self.cases_file, training, outcome.test)
            self.cases[_case_key(vars(training))] = outcome.test
        known = [point.step for point in self.points(training)]
        points = [point for point in outcome.points if point.step not in known]
        if points:
            append_points(self.curves_file, points)
            self.curves.setdefault(training.key, []).extend(points)


class Runner:
    """Do jobs in worker processes, those on record left out, until the time is up."""

    def __init__(
        self, tables: Tables, folder: Path, *, jobs: int, device: str, minutes: float | None
    ) -> None:
        self.tables, self.folder, self.device, self.jobs = tables, folder, device, jobs
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def run(self, benches: Sequence[Bench], budget: Budget) -> dict[tuple[str, str], float]:
        """Choose rates and train all seeds; return the rate by (level's label, arm)."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(self.jobs, trainings.start_worker) as pool:
            self._do(pool, [job for bench in benches for job in self._screening(bench, budget)])
            chosen = {
                (label(bench), arm.name): rate
                for bench in benches
                for arm in bench.arms
                if (rate := self.choose(bench, arm, budget)) is not None
            }
            for seed in range(budget.seeds):
                self._do(pool, list(self._final(benches, budget, chosen, seed)))
        return chosen

    def choose(self, bench: Bench, arm: Arm, budget: Budget) -> float | None:
        """Return the rate with the best validation Dice at the rung where rates are chosen."""
        source = next((other for other in bench.arms if other.name == arm.rate_of), arm)
        found = self.screened(bench, source, budget)
        return max(found, key=lambda rate: found[rate]) if found else None

    def screened(self, bench: Bench, arm: Arm, budget: Budget) -> dict[float, float]:
        """Return the validation Dice by rate, of the rates that were tried and did not diverge."""
        found = {}
        step = budget.rung_steps[budget.choose_at - 1]
        for rate in budget.rates:
            job = self.job(bench, arm, budget, rate=rate, seed=0)
            for point in self.tables.points(job.training()):
                if point.step == step:
                    found[rate] = point.dice
        return found

    def job(self, bench: Bench, arm: Arm, budget: Budget, *, rate: float, seed: int) -> Job:
        """Return the full training of an arm."""
        tree = {**arm.tree, "training": {**arm.tree["training"], "lr": rate}}
        return Job(
            name=arm.name,
            tree=tree,
            dataset=bench.dataset,
            task=bench.task,
            level=bench.level,
            fold=bench.fold,
            seed=seed,
            rung_steps=budget.rung_steps,
            stop_after=len(budget.rung_steps),
            batch_size=budget.batch_size,
            decided=bench.decided,
            folder=self.folder,
            device=self.device,
            test=True,
            tolerance=bench.tolerance,
        )

    def _screening(self, bench: Bench, budget: Budget) -> Iterator[Job]:
        for arm in bench.arms:
            for rate in () if arm.rate_of else budget.rates:
                full = self.job(bench, arm, budget, rate=rate, seed=0)
                yield replace(full, stop_after=budget.choose_at, test=False)

    def _final(
        self,
        benches: Sequence[Bench],
        budget: Budget,
        chosen: dict[tuple[str, str], float],
        seed: int,
    ) -> Iterator[Job]:
        for bench in benches:
            for arm in bench.arms:
                if (label(bench), arm.name) in chosen:
                    rate = chosen[label(bench), arm.name]
                    yield self.job(bench, arm, budget, rate=rate, seed=seed)

    def _do(self, pool: Any, jobs: Iterable[Job]) -> None:
        missing = [job for job in jobs if not self.tables.has(job, job.training())]
        pending = [(job, pool.apply_async(trainings.run, (job,))) for job in missing]
        for job, result in pending:
            left = None if self.deadline is None else max(self.deadline - time.monotonic(), 0)
            try:
                outcome: Outcome = result.get(left)
            except multiprocessing.TimeoutError:
                self.skipped.append(_title(job))
                continue
            self.tables.add(outcome)
            if outcome.failed:
                self.failed.append(f"{_title(job)}: {outcome.failed}")
            print(_line(outcome), flush=True)


def label(bench: Bench) -> str:
    """Return how tables call a bench."""
    return " ".join(part for part in (bench.task, bench.level, bench.setting) if part)


def _title(job: Job) -> str:
    return f"{job.task} {job.level} {job.name} lr {job.tree['training']['lr']:g} seed {job.seed}"


def _line(outcome: Outcome) -> str:
    if outcome.failed:
        return f"{_title(outcome.job):60} {outcome.failed}"
    if not outcome.points:
        return f"{_title(outcome.job):60} tested"
    last = outcome.points[-1]
    side = f" side {last.scores['side']:.3f}" if "side" in last.scores else ""
    return (
        f"{_title(outcome.job):60} step {last.step:5} Dice {last.dice:.3f}{side} "
        f"in {last.seconds:.0f} s"
    )


def _case_key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        str(row[name]) for name in ("trial_hash", "task", "level", "cases", "seed", "steps")
    )


def _read_cases(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _append_cases(path: Path, training: Training, cases: CaseScores) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CASE_COLUMNS, extrasaction="ignore", lineterminator="\n")
        if new:
            writer.writeheader()
        for case, scores in cases.items():
            rounded = {name: round(score, 4) for name, score in scores.items()}
            writer.writerow({**vars(training), "case": case, "scores": json.dumps(rounded)})
