"""What is kept of a trial beside its parameters and values: the names of its attributes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from search.space.limits import Excess
from search.study.earlier import end_in_words, excesses_in_words
from search.study.end import End
from search.trials.recorded import OTHER, from_record, to_record
from search.trials.train import Rung


@dataclass(frozen=True)
class JudgedRung(Rung):
    """A rung as a trial keeps it; `stop` says that the stopper ended the trial there."""

    loss: float = math.nan
    seconds: float = 0.0
    stop: bool = False
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, rung: Rung, *, stop: bool) -> "JudgedRung":
        return cls(**vars(rung), stop=stop)

    @property
    def stop_text(self) -> str:
        return f"at step {self.step}: cheaper ones are ahead"


@dataclass(frozen=True)
class TrialRecord:
    """The user attributes of a trial; one that a trial lacks is None or empty.

    Fields are called as the attributes are, which never change. `reason`, `rejected` and `lost` say
    why the trial ended to people: nothing is decided by them. `resumed_from` is the trial that it
    goes on with, `origin` the first of those, `retried_at` the step at which a worker was lost,
    `places_lost` how many whole places it outlived. `trained_on`, `gpu` and
    `precision` are those of a place that is not on the driver's machine, which is `host`.
    `network` is what it trains in place of a network of the space, for people. `other` holds the
    attributes of other rooms (`references.ANCHOR_SPEC`) and of later releases.
    """

    seed: int | None = None
    trial_hash: str | None = None
    flops: int | None = None
    macs: int | None = None
    scan_flops: int | None = None
    params: int | None = None
    memory: int | None = None
    """Bytes of a training step by estimate, where they are an objective."""
    latency: float | None = None
    calibration: float | None = None
    """Median seconds of both where the first is an objective, see `search.trials.latency`."""
    network: str | None = None
    windows_per_volume: int | None = None
    flops_per_volume: int | None = None
    host: str | None = None
    started: float | None = None
    rungs: tuple[JudgedRung, ...] = ()
    scores: dict[str, float] | None = None
    seconds: float | None = None
    retried_at: int | None = None
    resumed_from: int | None = None
    origin: int | None = None
    places_lost: int | None = None
    trained_on: str | None = None
    gpu: str | None = None
    precision: str | None = None
    twin: int | None = None
    """The trial that has the same network and recipe."""
    taken_from: str | None = None
    """The trial of an earlier run whose values it was queued with, for people."""
    over: tuple[Excess, ...] = ()
    reason: str | None = None
    rejected: str | None = None
    lost: str | None = None
    end: End | None = None
    """Written last, and before Optuna is told: see `end_of` for what it was told.

    Completion is no attribute: a kill between that and the values would leave a lie.
    """
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, trial: BaseTrial) -> "TrialRecord":
        """Read the attributes, of whatever release."""
        known = dict(trial.user_attrs)
        known["rungs"] = tuple(from_record(JudgedRung, rung) for rung in known.get("rungs", ()))
        known["over"] = tuple(from_record(Excess, one) for one in known.get("over", ()))
        word = known.pop("end", None)
        found = from_record(cls, known)
        return replace(found, end=End(word)) if word in list(End) else _of_earlier(found, trial)

    @property
    def last(self) -> JudgedRung | None:
        """Return the last recorded rung."""
        return self.rungs[-1] if self.rungs else None

    def cost(self, name: str) -> float | None:
        """Return a cost by its name among the objectives."""
        known = {"flops": self.flops, "params": self.params, "memory": self.memory}
        return self.calibrated if name == "latency" else known[name]

    @property
    def calibrated(self) -> float | None:
        """Return the latency in calibrations: what else the machine does changes both alike."""
        if self.latency is None or not self.calibration:
            return None
        return self.latency / self.calibration

    def first(self, number: int) -> int:
        """Return the first of the trials that this one, numbered so, goes on with, or itself."""
        return number if self.origin is None else self.origin

    @property
    def machine(self) -> str:
        """Return where it was trained, for people; "" where that is the driver's machine."""
        kind = ", ".join(filter(None, (self.gpu, self.precision)))
        return f"{self.trained_on} ({kind})" if self.trained_on and kind else self.trained_on or ""

    def attributes(self) -> dict[str, Any]:
        """Return what Optuna stores, by name."""
        found = {
            **vars(self),
            "rungs": [to_record(rung) for rung in self.rungs],
            "over": [to_record(one) for one in self.over],
            "end": None if self.end is None else self.end.value,
        }
        other = found.pop(OTHER)
        return {
            **{name: value for name, value in found.items() if value not in (None, [])},
            **other,
        }

    def heir(self, number: int) -> "TrialRecord":
        """Return the record of a trial that goes on with this one, which has the number."""
        return TrialRecord(
            seed=self.seed,
            rungs=self.rungs,
            retried_at=self.retried_at,
            places_lost=self.places_lost,
            latency=self.latency,
            calibration=self.calibration,
            resumed_from=number,
            origin=self.first(number),
            taken_from=self.taken_from,
            other=self.other,
        )


def write(trial: Trial, record: TrialRecord) -> None:
    """Write the attributes that changed, in the order of the fields."""
    before = trial.user_attrs
    for name, value in record.attributes().items():
        if name not in before or before[name] != value:
            trial.set_user_attr(name, value)


def end_of(trial: FrozenTrial) -> End | None:
    """Return why the trial ended, None while it waits or runs.

    Optuna's state comes first: it fails by itself what gave no sign of life.
    """
    if trial.state == TrialState.COMPLETE:
        return End.COMPLETED
    if not trial.state.is_finished():
        return None
    written = TrialRecord.of(trial).end
    if trial.state == TrialState.FAIL:
        return End.FAILED if written is End.FAILED else End.LOST
    return written if written is not None and written.pruned else End.REPEATED


def _of_earlier(found: TrialRecord, trial: BaseTrial) -> TrialRecord:
    """Return the record with the end that its rungs or words tell: no, or no known, one stands."""
    if found.reason is None and found.last is not None and found.last.stop:
        return replace(found, end=End.STOPPED)
    words = found.rejected
    over = words is not None and any(value > 0 for value in trial.constraints.values())
    end = end_in_words(found.reason, words, found.lost, over=over)
    if end is End.OVER_LIMIT and words is not None and not found.over:
        return replace(found, end=end, over=excesses_in_words(words))
    return replace(found, end=end)
