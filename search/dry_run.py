"""What a search would try and what it would take, without a study and without training."""

import textwrap
from dataclasses import dataclass
from typing import Any

import optuna

from archspec.costing import CONVENTION, cost_plan
from archspec.hashing import trial_hash
from archspec.memory import training_memory
from archspec.planning import Plan
from archspec.profiling import profile_plan
from blocks.base import SpecError
from search.limits import check_limits
from search.space import Space

_MAX_DRAWS = 200


@dataclass(frozen=True)
class Sample:
    """One network of the space, and the limits that it exceeds."""

    values: dict[str, Any]
    planned: Plan
    flops: int
    params: int
    memory: int
    over: tuple[str, ...]


@dataclass(frozen=True)
class DryRun:
    """Samples of a space; `seconds_per_step` is that of the network with the median FLOPs."""

    space: Space
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

    def text(self, trials: int, jobs: int) -> str:
        """Return a page: holes, samples, hours."""
        settings, planned = self.space.settings, self.samples[0].planned
        shape = " x ".join(
            map(str, (settings.batch_size, planned.in_channels, *planned.patch_size))
        )
        holes = self.space.holes()
        lines = [f"{self.space.name}: {self.space.size().text()}, {len(holes)} holes"]
        lines += [f"  {i + 1:2}  {hole.name}" for i, hole in enumerate(holes)]
        lines += ["", f"input {shape}, {CONVENTION}: GFLOPs of a patch, memory of a step"]
        lines.append("  GFLOPs       params  memory GB  values of the holes")
        for one in self.samples:
            values = ", ".join(_short(one.values.get(hole.name, "-")) for hole in holes)
            lines.append(
                f"{one.flops / 1e9:8.3f}{one.params:13,}{one.memory / 1e9:11.3f}  {values}"
            )
            lines += [f"{'':10}{text}" for text in one.over]
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


def dry_run(
    space: Space,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: tuple[int, ...] | None = None,
    device: str = "cpu",
    seconds_per_step: float | None = None,
    count: int = 10,
    seed: int = 0,
) -> DryRun:
    """Draw networks at random and cost them; time a step of one unless its seconds are given.

    Raises:
        SpecError: no valid network was drawn.
    """
    amp, settings = device.startswith("cuda"), space.settings
    size = space.size()
    most = count if size.ranges else min(count, size.combinations)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    samples: dict[str, Sample] = {}
    draws, mistakes = 0, []
    while len(samples) < most and draws < _MAX_DRAWS:
        draws += 1
        trial = study.ask()
        try:
            planned = space.draw(
                trial,
                in_channels=in_channels,
                num_classes=num_classes,
                patch_size=patch_size,
                device=device,
            )
        except SpecError as error:
            mistakes.append(str(error))
            continue
        key = trial_hash(planned.spec)
        if key in samples:
            continue
        cost = cost_plan(planned)
        memory = training_memory(planned, batch=settings.batch_size, amp=amp).total
        found = check_limits(settings.limits, cost, batch=settings.batch_size, amp=amp)
        over = tuple(excess.text for excess in found if excess.constraint > 0)
        samples[key] = Sample(trial.params, planned, cost.flops, cost.params, memory, over)
    drawn = list(samples.values())
    if not drawn:
        raise SpecError(f"{space.name}: {draws} draws gave no valid network; {mistakes[0]}")
    if seconds_per_step is not None:
        return DryRun(space, drawn, draws, len(mistakes), seconds_per_step, "given")
    step = profile_plan(
        _median(drawn).planned, device=device, batch=settings.batch_size, amp=amp, repeats=1
    )
    seconds = float(step["measured"]["step_seconds"])
    return DryRun(space, drawn, draws, len(mistakes), seconds, f"measured once on {device}")


def _median(samples: list[Sample]) -> Sample:
    kept = [sample for sample in samples if not sample.over] or samples
    return sorted(kept, key=lambda sample: sample.flops)[len(kept) // 2]


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
