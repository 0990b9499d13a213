"""The trials of a run as its report shows them: what became of each, its scores and its costs."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.pareto import pareto_front
from search.study.ledger import is_stopped, last_rung
from search.study.storage import queued_params

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


@dataclass(frozen=True)
class ReportTrial:
    """One trial; what is not known of it is None.

    `anchor` says that it, or the lost trial it goes on with, is tried because the space names it.
    `dice` is the validation Dice at the end, of a stopped trial the one it was judged by, at
    `step`. `seconds` are those of training up to there, validation not counted, and 0 for a lost
    trial that another number goes on with, which counts them.
    """

    number: int
    state: State
    choices: dict[str, Any]
    anchor: bool
    dice: float | None = None
    scores: dict[str, float] | None = None
    flops: int | None = None
    macs: int | None = None
    scan_flops: int | None = None
    params: int | None = None
    step: int = 0
    seconds: float = 0.0
    seconds_per_step: float | None = None
    seed: int | None = None
    reason: str = ""
    ended: datetime.datetime | None = None
    spec: str | None = None

    @property
    def gflops(self) -> float | None:
        return None if self.flops is None else self.flops / 1e9

    @property
    def done(self) -> bool:
        """Say whether it was trained to the end."""
        return self.state in ("front", "dominated")

    @property
    def trained(self) -> bool:
        """Say whether it counts as one of the trials that were asked for."""
        return self.done or self.state in ("stopped", "failed")


def read_trials(
    folder: Path, study: optuna.Study, settings: dict[str, Any]
) -> tuple[ReportTrial, ...]:
    """Return all trials by number; `settings` are those of run.json."""
    frozen = study.get_trials(deepcopy=False)
    resumed = {t.user_attrs["resumed_from"]: t.number for t in frozen if _resumed_from(t) >= 0}
    anchors = {
        trial.number
        for trial in frozen
        if queued_params(trial) is not None and _resumed_from(trial) < 0
    }
    trials = [
        replace(
            _read(folder, trial, resumed, settings),
            anchor=trial.user_attrs.get("origin", trial.number) in anchors,
        )
        for trial in frozen
    ]
    done = [index for index, trial in enumerate(trials) if trial.done]
    points = [(_log_flops(trials[index]), trials[index].dice or 0.0) for index in done]
    for position in pareto_front(points):
        trials[done[position]] = replace(trials[done[position]], state="front")
    return tuple(trials)


def front_of(trials: Sequence[ReportTrial]) -> list[ReportTrial]:
    """Return the front, cheapest first."""
    return sorted((t for t in trials if t.state == "front"), key=_log_flops)


def _log_flops(trial: ReportTrial) -> float:
    return math.log10(trial.flops or 1)


def _read(
    folder: Path, trial: FrozenTrial, resumed: dict[int, int], settings: dict[str, Any]
) -> ReportTrial:
    known, last = trial.user_attrs, last_rung(trial)
    state = _state(trial)
    done = state == "dominated"
    step = int(settings.get("steps", 0)) if done else int(last.get("step", 0))
    seconds = float(known.get("seconds", 0.0) if done else last.get("seconds", 0.0))
    if state == "lost" and trial.number in resumed:
        per_step, seconds = None, 0.0
    else:
        per_step = seconds / step if step and seconds else None
    scores = known.get("scores") if done else last.get("scores")
    dice = trial.values[0] if done else None
    if state == "stopped":
        dice = last["smoothed"] if last.get("smoothed") is not None else last["scores"]["mean"]
    file = folder / "trials" / f"{trial.number:04d}" / "spec.yaml"
    return ReportTrial(
        trial.number,
        state,
        dict(trial.params),
        anchor=False,
        dice=dice,
        scores={name: score for name, score in (scores or {}).items() if name != "mean"},
        flops=known.get("flops", _flops_over(trial, settings)),
        macs=known.get("macs"),
        scan_flops=known.get("scan_flops"),
        params=known.get("params"),
        step=step,
        seconds=seconds,
        seconds_per_step=per_step,
        seed=known.get("seed"),
        reason=_reason(trial, state, resumed),
        ended=trial.datetime_complete,
        spec=file.read_text(encoding="utf-8") if file.is_file() else None,
    )


def _flops_over(trial: FrozenTrial, settings: dict[str, Any]) -> int | None:
    """Return the FLOPs of a rejected trial that its constraint tells: log10 of their excess."""
    limit = (settings.get("limits") or {}).get("gflops")
    excess = trial.constraints.get("gflops")
    return None if limit is None or excess is None else round(1e9 * limit * 10**excess)


def _state(trial: FrozenTrial) -> State:
    """Return what became of the trial; `dominated` stands for all that were trained to the end."""
    if trial.state == TrialState.COMPLETE:
        return "dominated"
    if trial.state == TrialState.FAIL:
        return "failed" if "reason" in trial.user_attrs else "lost"
    if trial.state != TrialState.PRUNED:
        return "queued" if trial.state == TrialState.WAITING else "running"
    if is_stopped(trial):
        return "stopped"
    rejected = str(trial.user_attrs.get("rejected", ""))
    if any(value > 0 for value in trial.constraints.values()) or "over the limit" in rejected:
        return "over limit"
    return "invalid" if rejected.startswith("invalid") else "not new"


def _reason(trial: FrozenTrial, state: State, resumed: dict[int, int]) -> str:
    known, last = trial.user_attrs, last_rung(trial)
    if state == "stopped":
        return f"at step {last['step']}: cheaper ones are ahead"
    if state == "lost":
        later = resumed.get(trial.number)
        cause = str(known.get("lost", "the search was cut off"))
        return cause if later is None else f"{cause}; trial {later} goes on with it"
    text = str(known.get("reason") or known.get("rejected") or "")
    if _resumed_from(trial) >= 0:
        text = "; ".join(filter(None, (text, f"goes on with trial {_resumed_from(trial)}")))
    return text


def _resumed_from(trial: FrozenTrial) -> int:
    number = trial.user_attrs.get("resumed_from")
    return -1 if number is None else int(number)
