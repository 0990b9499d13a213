"""The trials of a run as its report shows them: what became of each, its scores and its costs."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.pareto import non_dominated
from search.space.objectives import COSTS
from search.space.references import reference_of
from search.study.earlier import flops_of_constraints
from search.study.end import End
from search.study.record import RunRecord
from search.study.storage import queued_params
from search.study.trial_record import TrialRecord, end_of

State = Literal[
    "front",
    "dominated",
    "stopped",
    "over limit",
    "failed",
    "lost",
    "not new",
    "invalid",
    "running",
    "queued",
]
STATES: tuple[State, ...] = get_args(State)
_STATE_OF: dict[End, State] = {
    End.COMPLETED: "dominated",
    End.STOPPED: "stopped",
    End.OVER_LIMIT: "over limit",
    End.FAILED: "failed",
    End.LOST: "lost",
    End.REPEATED: "not new",
    End.INVALID: "invalid",
}
"""`dominated` stands for all that were trained to the end, until the front is known."""


@dataclass(frozen=True)
class TrialCosts:
    """What one forward pass of its network costs; what was not noted is None."""

    flops: int | None = None
    macs: int | None = None
    scan_flops: int | None = None
    params: int | None = None
    memory: int | None = None
    latency: float | None = None
    calibration: float | None = None
    calibrated: float | None = None
    """Seconds of the two, and the first in units of the second."""


@dataclass(frozen=True)
class ReportTrial:
    """One trial; what is not known of it is None.

    `anchor` says that it, or the lost trial it goes on with, is tried because the space names it.
    `network` is what it trains in place of a network of the space: a spec, or one of the dataset's
    `plans`, narrowed or whole as it says.
    `dice` is the validation Dice at the end, of a stopped trial the one it was judged by, at
    `step`. `seconds` are those of training up to there, validation not counted, and 0 for a lost
    trial that another number goes on with, which counts them. `cause` is the reason without what
    differs from trial to trial, so that it can be counted.
    """

    number: int
    state: State
    choices: dict[str, Any]
    anchor: bool
    network: str = ""
    plans: str | None = None
    dice: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    costs: TrialCosts = TrialCosts()
    step: int = 0
    seconds: float = 0.0
    seed: int | None = None
    reason: str = ""
    cause: str = ""
    ended: datetime.datetime | None = None
    spec: str | None = None
    place: tuple[float, ...] = ()
    """log10 of its costs among the objectives, where these are others than FLOPs."""
    taken_from: str = ""
    """The trial of an earlier run whose values it was tried with first."""
    machine: str = ""
    """Where it was trained, with GPU and precision, if that is not the driver's machine."""

    def cost(self, name: str) -> float | None:
        """Return a cost by its name among the objectives, in that one's unit."""
        costs = self.costs
        known: dict[str, float | None] = {
            "flops": costs.flops,
            "params": costs.params,
            "memory": costs.memory,
            "latency": costs.calibrated,
        }
        value = known[name]
        return None if value is None else value / COSTS[name].scale

    @property
    def log_costs(self) -> tuple[float, ...]:
        """Return log10 of its costs among the objectives."""
        return self.place or (math.log10(self.costs.flops or 1),)

    @property
    def gflops(self) -> float | None:
        return None if self.costs.flops is None else self.costs.flops / 1e9

    @property
    def seconds_per_step(self) -> float | None:
        return self.seconds / self.step if self.step and self.seconds else None

    @property
    def done(self) -> bool:
        """Say whether it was trained to the end."""
        return self.state in ("front", "dominated")

    @property
    def trained(self) -> bool:
        """Say whether it counts as one of the trials that were asked for."""
        return self.done or self.state in ("stopped", "failed")


def read_trials(folder: Path, study: optuna.Study, run: RunRecord) -> tuple[ReportTrial, ...]:
    """Return all trials by number."""
    frozen = study.get_trials(deepcopy=False)
    records = {trial.number: TrialRecord.of(trial) for trial in frozen}
    heirs = {
        record.resumed_from: number
        for number, record in records.items()
        if record.resumed_from is not None
    }
    anchors = {
        trial.number
        for trial in frozen
        if queued_params(trial) is not None
        and records[trial.number].resumed_from is None
        and records[trial.number].taken_from is None
    }
    trials = [
        replace(
            _read(folder, trial, heirs.get(trial.number), run),
            anchor=records[trial.number].first(trial.number) in anchors,
        )
        for trial in frozen
    ]
    done = [index for index, trial in enumerate(trials) if trial.done]
    points = [(trials[index].log_costs, trials[index].dice or 0.0) for index in done]
    for position in non_dominated(points):
        trials[done[position]] = replace(trials[done[position]], state="front")
    return tuple(trials)


def heights_of(trials: Sequence[ReportTrial]) -> list[float]:
    """Return the Dice that an axis has to show: those of trials that were trained to the end.

    One that was stopped early for its low Dice would flatten the others to a line.
    """
    known = [(trial.done, trial.dice) for trial in trials]
    done = [dice for is_done, dice in known if is_done and dice is not None]
    return done or [dice for _, dice in known if dice is not None]


def front_of(trials: Sequence[ReportTrial]) -> list[ReportTrial]:
    """Return the front, cheapest first."""
    return sorted((t for t in trials if t.state == "front"), key=lambda t: t.log_costs)


def _read(folder: Path, trial: FrozenTrial, heir: int | None, run: RunRecord) -> ReportTrial:
    """Read one trial, `heir` being the one that goes on with it."""
    known, end = TrialRecord.of(trial), end_of(trial)
    last, done = known.last, end is End.COMPLETED
    seconds = (known.seconds if done else last and last.seconds) or 0.0
    step = run.steps if done else last.step if last else 0
    if end is End.LOST and heir is not None:
        seconds = 0.0
    scores = known.scores if done else last and last.scores
    dice = trial.values[0] if done else None
    if end is End.STOPPED and last is not None:
        dice = last.dice
    reference = reference_of(trial)
    flops = known.flops
    if flops is None:
        flops = flops_of_constraints(trial.constraints, run.max_gflops)
    costs = run.objectives.costs
    usual = costs == ("flops",)
    told, another = _told(known, end), _of_another(known, end, heir)
    file = folder / "trials" / f"{trial.number:04d}" / "spec.yaml"
    return ReportTrial(
        trial.number,
        _state(trial, end),
        dict(trial.params),
        anchor=False,
        network=known.network or (reference.label if reference else ""),
        plans=reference.name if reference and reference.kind == "plans" else None,
        dice=dice,
        scores={name: score for name, score in (scores or {}).items() if name != "mean"},
        costs=TrialCosts(
            flops,
            known.macs,
            known.scan_flops,
            known.params,
            known.memory,
            known.latency,
            known.calibration,
            known.calibrated,
        ),
        taken_from=known.taken_from or "",
        machine=known.machine,
        place=() if usual else tuple(math.log10(known.cost(name) or 1) for name in costs),
        step=step,
        seconds=seconds,
        seed=known.seed,
        reason="; ".join(filter(None, (told, another))),
        cause=_cause(known, end) if told else another,
        ended=trial.datetime_complete,
        # shown as it stands: whoever builds it reads it strictly
        spec=file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None,
    )


def _state(trial: FrozenTrial, end: End | None) -> State:
    """Return what became of the trial."""
    if end is not None:
        return _STATE_OF[end]
    return "queued" if trial.state == TrialState.WAITING else "running"


def _told(known: TrialRecord, end: End | None) -> str:
    """Return why the trial ended, in words."""
    if end is End.STOPPED and known.last is not None:
        return known.last.stop_text
    if end is End.LOST:
        return known.lost or "the search was cut off"
    return known.reason or known.rejected or ""


def _cause(known: TrialRecord, end: End | None) -> str:
    """Return the words that trials which ended for one cause share."""
    if end is End.REPEATED:
        return "the same network and recipe as an earlier trial"
    if end is End.OVER_LIMIT:
        return "; ".join(one.kind for one in known.over)
    return _told(known, end)


def _of_another(known: TrialRecord, end: End | None, heir: int | None) -> str:
    """Return which trial goes on with this one, or this one with."""
    if end is End.LOST:
        return "" if heir is None else f"trial {heir} goes on with it"
    if end is End.STOPPED or known.resumed_from is None:
        return ""
    return f"goes on with trial {known.resumed_from}"
