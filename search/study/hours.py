"""How many trials, rungs and seeds fit into so many hours on this machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from archspec.costs.measure import profile_plan
from blocks.errors import SpecError, argument
from search.space.dry_run import DryRun, Sample, dry_run
from search.space.references import Reference
from search.space.space import Space
from search.study.data import windows_of
from search.study.session import data_split
from search.trials.host import TrainingHost
from search.trials.own import Data

STOPPED_SHARE = 24 / 65
"""Budget of a trial over that of a full training where trials are stopped.

Source: benchmarks/results/search_efficiency.txt, TPE with this stopper: 65 trials, 23 of them
trained to the end, for 24 trainings; one synthetic task.
"""
_FRONT = 1.8
"""Networks on a front over ln of the trials: 9 of 144 in that table, 3 to 4 of 8 in the demo."""
_SEEDS = 3
_CONFIRMING = 0.25
_VALIDATING = 0.1
_EVIDENCE = 5
_REPEATS = 3


@dataclass(frozen=True)
class Speed:
    """What was measured: seconds of a step and of scoring all validation cases, on average.

    `steps` are (GFLOPs, seconds of a step) of the networks that were timed. `validation` is 0 where
    plans do not say how large a case is.
    """

    step: float
    validation: float
    steps: tuple[tuple[float, float], ...]
    num_cases: int


@dataclass(frozen=True)
class HoursPlan:
    """A search that fits: `searching` seconds after its start no new trial is drawn."""

    hours: float
    jobs: int
    num_steps: int
    trials: int
    rungs: int
    seeds: int
    front: int
    training: float
    share: float
    searching: float
    speed: Speed
    device: str
    ended: int = 0
    also: int = 0

    def text(self) -> str:
        """Return it in words, with what it rests on."""
        new = self.trials - self.ended
        more = f", {self.ended} of them ended already" if self.ended else ""
        timed = ", ".join(f"{s:.3g} s at {flops:.3g} GFLOPs" for flops, s in self.speed.steps)
        lines = [
            f"plan for {self.hours:g} hours, {self.jobs} at a time: {self.trials} trials of "
            f"{self.num_steps:,} steps{more}, {self.rungs} rung{'s' * (self.rungs > 1)}, "
            f"{self.seeds} new seed{'s' * (self.seeds != 1)} for each network of the front",
            f"a step, measured now on {self.device}: {timed}; {self.speed.step:.3g} s on average",
            self._validation,
            f"a training to the end: {_time(self.training)}; loading and augmentation are on top",
        ]
        if self.share < 1:
            many = f"{new * self.share:.0f}"
            lines.append(
                f"{new} trials take as long as {many} such trainings if as many are stopped "
                "as in benchmarks/results/search_efficiency.txt"
            )
        if self.seeds:
            again = self.front * self.seeds * self.training / self.jobs
            what = "the front and its rivals" if self.also else "the front"
            lines.append(f"{what} again, {self.front} networks by guess: {_time(again)}")
        lines.append(f"no trial is begun after {_time(self.searching)}")
        return "\n".join(lines)

    @property
    def _validation(self) -> str:
        if not self.speed.validation:
            return "validation is not counted: the plans do not say how large a case is"
        return (
            f"scoring {self.speed.num_cases} validation cases: about "
            f"{_time(self.speed.validation)} at each rung"
        )


@dataclass(frozen=True)
class Before:
    """What a run that is gone on with has: trials that ended, and its number of rungs."""

    ended: int = 0
    rungs: int | None = None


FRESH = Before()


@dataclass(frozen=True)
class Again:
    """What is trained again at the end: the front and so many others, with so many seeds each.

    Seeds are left to the plan where they are None.
    """

    seeds: int | None = None
    also: int = 0


FRONT = Again()


def measure_speed(
    space: Space,
    dataset: Data,
    host: TrainingHost,
    *,
    seconds_per_step: float | None = None,
) -> Speed:
    """Time a step and a forward pass of the cheapest, the median and the dearest of ten draws.

    With `seconds_per_step`, that of the median, none is timed: steps are as long as their FLOPs
    say, and a validation is not counted.

    Raises:
        SpecError: no valid network was drawn; a GPU is to be timed, and this machine has none.
    """
    device = host.devices[0]
    if device.startswith("cuda") and seconds_per_step is None and not torch.cuda.is_available():
        raise SpecError(
            "steps are timed on this machine, which has no GPU, and the trainings ask for one",
            field="hours",
            suggestion="give `trials`, or start the search on a machine with such a GPU",
        )
    found = dry_run(
        space,
        dataset.sizes,
        device=device,
        seconds_per_step=seconds_per_step or 0.0,
        seed=host.seed,
    )
    kept = sorted((one for one in found.samples if not one.over), key=lambda one: one.flops)
    kept = kept or found.samples
    num_cases = len(data_split(dataset, host.fold)["validation"])
    if seconds_per_step is not None:
        mean = float(np.mean([one.flops for one in kept])) / found.median.flops
        given = ((found.median.flops / 1e9, seconds_per_step),)
        return Speed(seconds_per_step * mean, 0.0, given, num_cases)
    return _timed(found, kept, dataset, device, num_cases)


def _timed(
    found: DryRun, kept: Sequence[Sample], dataset: Data, device: str, num_cases: int
) -> Speed:
    batch = found.space.settings.batch_size
    chosen = {one.flops: one for one in (kept[0], kept[len(kept) // 2], kept[-1])}
    profiles = {
        flops: profile_plan(one.planned, device=device, batch=batch, repeats=_REPEATS).measured
        for flops, one in chosen.items()
    }
    flops, known = [one.flops for one in kept], list(profiles)

    def mean(seconds: Sequence[float]) -> float:
        return float(np.mean(np.interp(flops, known, seconds)))

    steps = [one.step_seconds for one in profiles.values()]
    patch = mean([one.forward_seconds for one in profiles.values()]) / batch
    windows = (windows_of(dataset) or 0) * num_cases
    timed = tuple((cost / 1e9, step) for cost, step in zip(known, steps, strict=True))
    return Speed(mean(steps), windows * patch, timed, num_cases)


def plan_hours(
    space: Space,
    host: TrainingHost,
    hours: float,
    speed: Speed,
    *,
    again: Again = FRONT,
    before: Before = FRESH,
) -> HoursPlan:
    """Return the largest search that fits.

    Validations at rungs before the last take at most a tenth of a training, and there are none
    where so few trials fit that the stopper would judge none; the space's own number of rungs
    stays where it gives one, and that of a resumed run. Where test cases are held out up to a
    quarter of the time is for up to three new seeds of the front, unless their number is given. The
    trials of a resumed run that have ended come on top.

    Raises:
        SpecError: not one training fits.
    """
    seeds, also = again.seeds, again.also
    settings, jobs, ended = space.settings, len(host.devices), before.ended
    given = before.rungs or (settings.rungs if "rungs" in settings.model_fields_set else None)
    steps = settings.steps * speed.step
    affordable = 1 + int(_VALIDATING * steps // speed.validation) if speed.validation else 64
    wanted = given or min(settings.rungs, affordable)
    budget = 3600 * hours * jobs

    def fitting(seconds: float, count: int) -> tuple[int, float, float]:
        """Return trials, the seconds of a full training, and the share of it that each takes."""
        full = steps + count * speed.validation
        stops = settings.stopper != "none" and count > 1 and seconds // full > _EVIDENCE
        share = STOPPED_SHARE if stops else 1.0
        return int(seconds // (full * share)), full, share

    number, full, share = fitting(budget, wanted)
    if number + ended <= _EVIDENCE and given is None:
        wanted = 1
        number, full, share = fitting(budget, wanted)
    if not number:
        raise SpecError(
            f"a training of {settings.steps:,} steps takes {_time(full)} here",
            where=argument("hours", hours),
            suggestion="give more hours, or fewer steps: -s search.steps=...",
        )
    asked = seeds if seeds is not None else _SEEDS * bool(settings.test_share)
    front = _front(number + ended) + also
    if seeds is None and asked:
        asked = max(1, min(_SEEDS, int(_CONFIRMING * budget // (front * full))))
    left = max(budget - asked * front * full, full)
    number, _, share = fitting(left, wanted)
    most = space.size()
    if not most.ranges:
        named = sum(Reference.of_anchor(anchor) is not None for anchor in settings.anchors)
        number = min(number, max(most.combinations + named - ended, 0))
    return HoursPlan(
        hours,
        jobs,
        settings.steps,
        number + ended,
        wanted,
        asked,
        _front(number + ended) + also,
        full,
        share,
        left / jobs,
        speed,
        host.devices[0],
        ended,
        also,
    )


def _front(trials: int) -> int:
    return max(1, min(trials, math.ceil(_FRONT * math.log(max(trials, 2)))))


def _time(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.3g} s"
