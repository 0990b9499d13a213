"""Where trainings run, and what they share besides their network."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainingHost:
    """The machine that trains, and which cases and random numbers it trains with.

    `devices` has one device per worker, `threads` are those of each worker. `plans` are the nnU-Net
    plans that a dataset is looked up with; a dataset that was found already has its own.
    """

    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    fold: int = 0
    seed: int = 0
    plans: str = "nnUNetPlans"


ONE_CPU = TrainingHost()
"""The default: a process with one thread, fold 0, seed 0."""
