"""What a search would try and what it would take, without a study and without training."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.trial import BaseTrial

from archspec.costs.flops import CONVENTION, cost_plan
from archspec.costs.measure import profile_plan
from archspec.costs.memory import training_memory
from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan
from archspec.spec.hashing import trial_hash
from blocks.base import SpecError
from search.space.first import first_of, invalid_text, left_out
from search.space.limits import Excess, check_limits
from search.space.references import Reference, reference_of
from search.space.settings import SearchSettings
from search.space.space import Space

_MAX_DRAWS = 200


@dataclass(frozen=True)
class Sample:
    """One network, and the limits that it exceeds.

    `reference` is what an anchor names; `fitted` says what fits its stages to the dataset.
    """

    values: dict[str, Any]
    planned: Plan
    flops: int
    params: int
    memory: int
    over: tuple[Excess, ...]
    reference: Reference | None = None
    fitted: str | None = None

    def to_json(self) -> dict[str, Any]:
        named: dict[str, str | None] = {"spec": None, "plans": None}
        if self.reference is not None:
            named[self.reference.kind] = self._label
        return {
            **named,
            "values": self.values,
            "flops": self.flops,
            "params": self.params,
            "memory": self.memory,
            "over": [asdict(excess) for excess in self.over],
            "fitted": self.fitted,
        }

    def lines(self, holes: Sequence[str]) -> list[str]:
        """Return a row of costs and the holes' values, or the spec's widths; then what is over."""
        label = ", ".join(_short(self.values.get(hole, "-")) for hole in holes)
        if self.reference is not None:
            widths = ", ".join(str(stage.out.channels) for stage in self.planned.stages)
            label = f"{self._label}, widths {widths}"
        row = f"{self.flops / 1e9:8.3f}{self.params:13,}{self.memory / 1e9:11.3f}  "
        lines = textwrap.wrap(label, 80, initial_indent=row, subsequent_indent=" " * len(row))
        return [*lines, *(f"{'':10}{excess.text}" for excess in self.over)]

    @property
    def _label(self) -> str:
        return "" if self.reference is None else self.reference.label_of(self.planned.spec)


@dataclass(frozen=True)
class DryRun:
    """Samples of a space; `seconds_per_step` is that of the network with the median FLOPs.

    `anchors` are what is tried first, or why it cannot be.
    """

    space: Space
    anchors: list[Sample | str]
    samples: list[Sample]
    num_draws: int
    num_invalid: int
    seconds_per_step: float
    measured: str

    @property
    def median(self) -> Sample:
        """Return the sample with the median FLOPs, of those within the limits if there are any."""
        return _median(self.samples)

    def hours(self, trials: int, jobs: int) -> float:
        """Return the hours of so many trainings, their steps as long as their FLOPs say."""
        kept = [s.flops for s in self.samples if not s.over] or [s.flops for s in self.samples]
        mean_step = self.seconds_per_step * sum(kept) / len(kept) / self.median.flops
        return trials * self.space.settings.steps * mean_step / 3600 / jobs

    def to_json(self, trials: int = 40, jobs: int = 1) -> dict[str, Any]:
        """Return plain data; an anchor that cannot be tried is the reason why."""
        planned, size = self.samples[0].planned, self.space.size()
        return {
            "space": self.space.name,
            "combinations": size.combinations,
            "ranges": size.ranges,
            "holes": [hole.name for hole in self.space.holes()],
            "convention": CONVENTION,
            "input": [
                self.space.settings.batch_size,
                planned.in_channels,
                *planned.patch_size,
            ],
            "samples": [one.to_json() for one in self.samples],
            "anchors": [one if isinstance(one, str) else one.to_json() for one in self.anchors],
            "draws": self.num_draws,
            "invalid": self.num_invalid,
            "seconds_per_step": self.seconds_per_step,
            "measured": self.measured,
            "trials": trials,
            "jobs": jobs,
            "hours": self.hours(trials, jobs),
        }

    def text(self, trials: int = 40, jobs: int = 1) -> str:
        """Return a page: holes, samples, hours."""
        settings, planned = self.space.settings, self.samples[0].planned
        shape = " x ".join(
            map(str, (settings.batch_size, planned.in_channels, *planned.patch_size))
        )
        holes = self.space.holes()
        lines = [f"{self.space.name}: {self.space.size().text()}, {len(holes)} holes"]
        lines += [f"  {i + 1:2}  {hole.name}" for i, hole in enumerate(holes)]
        lines += ["", f"input {shape}, {CONVENTION}: GFLOPs of a patch, memory of a step"]
        lines.append("  GFLOPs       params  memory GB  values of the holes, 1, 2, ...")
        names = [hole.name for hole in holes]
        for one in self.samples:
            lines += one.lines(names)
        lines += ["anchors, tried first"] if self.anchors else []
        for anchor in self.anchors:
            lines += [anchor] if isinstance(anchor, str) else anchor.lines(names)
        lines += self._fitted()
        over = sum(bool(one.over) for one in self.samples)
        remarks = [
            f"{self.num_draws - self.num_invalid} of {self.num_draws} draws were valid networks; "
            f"{over} of the {len(self.samples)} samples exceed a limit.",
            f"{self.seconds_per_step:.3f} s per step of the sample with the median FLOPs "
            f"({self.median.flops / 1e9:.3f} G), {self.measured}.",
            f"About {_hours(self.hours(trials, jobs))} for {trials} trainings of {settings.steps} "
            f"steps, {jobs} at a time. Loading and validation come on top, early stopping "
            f"({settings.stopper}) takes off.",
        ]
        lines += ["", *(line for text in remarks for line in textwrap.wrap(text, 80))]
        return "\n".join(lines)

    def _fitted(self) -> list[str]:
        """Return each way in which stages were fitted, and how many of the networks above."""
        shown = [*self.samples, *(one for one in self.anchors if not isinstance(one, str))]
        counts = Counter(one.fitted for one in shown if one.fitted is not None)
        return [
            line
            for note, count in counts.most_common()
            for line in textwrap.wrap(
                f"{count} of {len(shown)}: {note}", 80, subsequent_indent="  "
            )
        ]


def dry_run(
    space: Space,
    sizes: InputSizes = OF_SPEC,
    *,
    device: str = "cpu",
    seconds_per_step: float | None = None,
    count: int = 10,
    seed: int = 0,
) -> DryRun:
    """Draw networks at random and cost them; time a step of one unless its seconds are given.

    Anchors that name networks of a dataset's plans need them: `with_plans(space, dataset)`.

    Raises:
        SpecError: no valid network was drawn.
    """
    settings, size, amp = space.settings, space.size(), device.startswith("cuda")

    most = count if size.ranges else min(count, size.combinations)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    samples: dict[str, Sample] = {}
    draws, mistakes = 0, []
    while len(samples) < most and draws < _MAX_DRAWS:
        draws += 1
        trial = study.ask()
        try:
            planned = space.draw(trial, sizes, device=device)
        except SpecError as error:
            mistakes.append(error.line)
            continue
        key = trial_hash(planned.spec)
        if key not in samples:
            note = space.stages_note(trial, sizes)
            samples[key] = replace(_sample(trial, planned, settings, amp=amp), fitted=note)
    drawn = list(samples.values())
    if not drawn:
        advice = "; or give `stages_from_dataset`, or another `patch_size`"
        raise SpecError(
            f"{draws} draws gave no valid network",
            where=space.name,
            suggestion=mistakes[0] + advice * space.sizes(sizes).exact,
        )
    anchors: list[Sample | str] = []
    for anchor in first_of(space):
        fixed = anchor.trial()
        try:
            planned = space.draw(fixed, sizes, device=device)
            note = space.stages_note(fixed, sizes)
            anchors.append(replace(_sample(fixed, planned, settings, amp=amp), fitted=note))
        except SpecError as error:
            anchors.append(invalid_text(anchor, error))
    anchors += left_out(space)
    seconds, measured = seconds_per_step, "given"
    if seconds is None:
        step = profile_plan(
            _median(drawn).planned, device=device, batch=settings.batch_size, amp=amp, repeats=1
        )
        seconds, measured = step.measured.step_seconds, f"measured once on {device}"
    return DryRun(space, anchors, drawn, draws, len(mistakes), seconds, measured)


def _sample(trial: BaseTrial, planned: Plan, settings: SearchSettings, *, amp: bool) -> Sample:
    cost, batch = cost_plan(planned), settings.batch_size
    memory = training_memory(planned, batch=batch, amp=amp).total
    found = check_limits(settings.limits, cost, batch=batch, amp=amp)
    over = tuple(excess for excess in found if excess.constraint > 0)
    reference = reference_of(trial)
    return Sample(trial.params, planned, cost.flops, cost.params, memory, over, reference)


def _median(samples: list[Sample]) -> Sample:
    kept = [sample for sample in samples if not sample.over] or samples
    return sorted(kept, key=lambda sample: sample.flops)[len(kept) // 2]


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if value < 100 else f"{value:.4g}"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
