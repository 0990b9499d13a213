"""The state of a search, running or not, in a few lines."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from archspec.text import command_line, duration
from search.report.summary import machines
from search.report.trials import STATES, ReportTrial, front_of, read_trials
from search.retrain.confirm import TABLE
from search.retrain.confirmation import RESULT
from search.retrain.retrain import sign_of_life
from search.space.objectives import COSTS, Objectives
from search.study.damage import DATABASE
from search.study.session import SESSIONS, read_sessions
from search.study.storage import GRACE, last_sign, open_run
from search.study.trial_record import TrialRecord
from search.trials.train import METRICS

Activity = Literal["running", "confirming", "ended", "stands still"]


@dataclass(frozen=True)
class Training:
    """A trial that is being trained, and its last rung: 0 and None before the first."""

    trial: int
    step: int
    dice: float | None


@dataclass(frozen=True)
class Point:
    """A trial of the front: its Dice, and its costs by their names in files."""

    trial: int
    dice: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Confirming:
    """How many trainings of the front with new seeds the folder holds, and how many ended."""

    ended: int
    trainings: int


@dataclass(frozen=True)
class Status:
    """What a run folder tells of its search.

    It is `confirming` while its front is trained again, whatever became of the search before.
    `asked` are the trials that it was last started for, None where a release did not note them.
    `states` counts trials by what became of them. `best` is the network of the highest Dice, and
    `cheapest` has that of the front for each cost. `silent` are the seconds since anything was
    written, `left` those until all have ended, by those that ended since the last start; None
    where none did, or nothing runs.
    """

    run: str
    space: str
    dataset: str
    activity: Activity
    steps: int
    asked: float | None
    ended: int
    states: Mapping[str, int]
    training: Sequence[Training]
    best: Point | None
    cheapest: Mapping[str, Point]
    silent: float
    left: float | None
    confirming: Confirming | None = None
    machines: Mapping[str, int] = field(default_factory=dict)
    """Trials by the machine of a cluster that they are or were with, GPU and precision named."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def headline(self) -> str:
        """Return how far it is, in a few words."""
        again = self.confirming
        if again is not None:
            return f"confirming: {again.ended} of {again.trainings} trainings ended"
        return f"{self.activity}: trials: {self._ended()}"

    def _ended(self) -> str:
        return (
            f"{self.ended} ended" if self.asked is None else f"{self.ended} of {self.asked} ended"
        )

    def text(self) -> str:
        """Return it in words."""
        named = f"{self.space} on {self.dataset}" if self.space else self.dataset
        lines = [f"{named}: {self.activity}, last sign of life {duration(self.silent)} ago"]
        asked = self._ended()
        kinds = "; ".join(f"{count} {state}" for state, count in self.states.items())
        lines.append(f"trials: {asked}" + (f" ({kinds})" if kinds else ""))
        for one in self.training:
            dice = "" if one.dice is None else f", Dice {one.dice:.3f}"
            lines.append(f"trial {one.trial}: {one.step:,} of {self.steps:,} steps{dice}")
        lines += [f"on {name}: {count} trials" for name, count in self.machines.items()]
        if self.best is not None:
            lines.append(f"best Dice: {_point(self.best)}")
        for name, point in self.cheapest.items():
            lines.append(f"front, least {COSTS[name].head}: {_point(point)}")
        if self.confirming is not None:
            again = self.confirming
            lines.append(f"the front, trained again: {again.ended} of {again.trainings} ended")
        elif self.activity == "running":
            told = (
                "known after the first trial"
                if self.left is None
                else f"about {duration(self.left)}"
            )
            lines.append(f"time left: {told}")
        elif self.activity == "ended":
            lines.append(f"next: {command_line('archspec', 'report', self.run)}")
        else:
            lines.append("archspec search --resume goes on, where its space has more to try")
        return "\n".join(lines)


def read_status(folder: Path, *, now: datetime.datetime | None = None) -> Status:
    """Return the state of the search in the folder; safe while it runs.

    It is taken to run while something trains and the last sign of life is at most `GRACE` old.

    Raises:
        SpecError: no run there, or one that is damaged.
    """
    study, record = open_run(folder)
    now = now or datetime.datetime.now(datetime.UTC)
    trials, sessions = read_trials(folder, study, record), read_sessions(folder)
    last = sessions[-1] if sessions else {}
    asked, ended = _number(last, "trials"), sum(trial.trained for trial in trials)
    confirming = _confirming(folder, now)
    written = _last_written(folder)
    signs = [now.timestamp() - written, last_sign(study) if record.storage else None]
    silent = max(min(sign for sign in signs if sign is not None), 0.0)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    activity: Activity = "stands still"
    if confirming is not None:
        activity = "confirming"
    elif running and silent <= GRACE:
        activity = "running"
    elif asked is not None and ended >= asked:
        activity = "ended"
    objectives, front = record.objectives, front_of(trials)
    points = [_of_front(trial, objectives) for trial in front]
    cheapest: dict[str, Point] = {}
    for name in objectives.costs if points else ():
        cheapest[name] = min(points, key=_by(COSTS[name].column))
    return Status(
        run=str(folder),
        space=str((record.space or {}).get("name", "")),
        dataset=record.dataset,
        activity=activity,
        steps=record.steps,
        asked=asked,
        ended=ended,
        states={
            state: count
            for state in STATES
            if (count := sum(trial.state == state for trial in trials))
        },
        training=[_training(one) for one in running],
        best=max(points, key=lambda point: point.dice, default=None),
        cheapest=cheapest,
        silent=silent,
        left=_left(trials, last, now) if activity == "running" else None,
        confirming=confirming,
        machines={one.state: one.count for one in machines(trials)},
    )


def _last_written(folder: Path) -> float:
    """Return when anything that a running search writes was written: its heartbeat, or a rung.

    Or the sign of life of a confirmation.
    """
    first = folder / DATABASE
    files = [first if first.is_file() else folder / SESSIONS, *folder.glob(f"trials/*/{METRICS}")]
    return max(_written(file) for file in (*files, sign_of_life(folder / TABLE)))


def _written(file: Path) -> float:
    """Return when; long ago where there is no file."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return -math.inf


def _confirming(folder: Path, now: datetime.datetime) -> Confirming | None:
    """Return how far a confirmation is; None where none gave a sign of life since the last result.

    Nor where the last sign is older than `GRACE`.
    """
    beat = _written(sign_of_life(folder / TABLE))
    if now.timestamp() - beat > GRACE or _written(folder / RESULT) >= beat:
        return None
    table = folder / TABLE
    ended = table.read_bytes().count(b"\n") if table.is_file() else 0
    kept = sum(path.is_dir() for path in table.with_suffix("").glob("*"))
    return Confirming(ended, max(kept, ended))


def _left(
    trials: Sequence[ReportTrial], session: Mapping[str, Any], now: datetime.datetime
) -> float | None:
    """Return the seconds that the trials to come take, if they take as long as those that ended."""
    asked, limit = _number(session, "trials"), _number(session, "seconds")
    started = _start(session)
    if asked is None or started is None:
        return None
    ended = [trial.ended for trial in trials if trial.trained and trial.ended is not None]
    since = [date for date in ended if date.astimezone() >= started]
    if not since:
        return None
    seconds = (now - started).total_seconds()
    left = seconds / len(since) * max(asked - len(ended), 0)
    if limit is not None:  # no trial is begun after them
        left = min(left, max(limit - seconds, 0.0) + seconds / len(since))
    return left


def _start(session: Mapping[str, Any]) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(session["date"]).astimezone()
    except (KeyError, TypeError, ValueError):
        return None


def _number(session: Mapping[str, Any], name: str) -> float | None:
    """Return a number that the session noted; None where a release noted none."""
    value = session.get(name)
    return value if isinstance(value, int | float) else None


def _by(column: str) -> Callable[[Point], float]:
    return lambda point: point.costs.get(column, math.inf)


def _training(trial: FrozenTrial) -> Training:
    last = TrialRecord.of(trial).last
    return (
        Training(trial.number, 0, None)
        if last is None
        else Training(trial.number, last.step, last.dice)
    )


def _of_front(trial: ReportTrial, objectives: Objectives) -> Point:
    costs = {COSTS[name].column: trial.cost(name) for name in objectives.costs}
    known = {name: value for name, value in costs.items() if value is not None}
    return Point(trial.number, trial.dice or 0.0, known)


def _point(point: Point) -> str:
    units = {cost.column: cost.unit for cost in COSTS.values()}
    costs = ", ".join(f"{value:.4g} {units[name]}" for name, value in point.costs.items())
    return f"{point.dice:.3f} at {costs} (trial {point.trial})"
