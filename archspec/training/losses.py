"""Losses of steps that are not waited for."""

import math

import torch
from torch import Tensor

READ_EVERY = 20
"""Steps between two looks at a GPU's losses."""


class DivergedError(RuntimeError):
    """The loss is not a number."""


class Losses:
    """The losses of successive steps; each must be a number.

    A GPU is asked for several at once: whoever reads one waits until all work given to the GPU is
    done, which then has none. On a CPU every loss is looked at at once.
    """

    def __init__(self, device: torch.device, first_step: int) -> None:
        self._every = READ_EVERY if device.type == "cuda" else 1
        self._first_step = first_step
        self._read: list[float] = []
        self._waiting: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take the loss of the next step.

        Raises:
            DivergedError: a loss that was looked at now is NaN or infinite.
        """
        self._waiting.append(loss)
        if len(self._waiting) >= self._every:
            self.read()

    @property
    def last(self) -> float | None:
        """Return the last loss that was looked at, None before there is one; waits for nothing."""
        return self._read[-1] if self._read else None

    def read(self) -> list[float]:
        """Return the losses of all steps so far.

        Raises:
            DivergedError: one of them is NaN or infinite; it names the first.
        """
        values = torch.stack(self._waiting).tolist() if self._waiting else []
        self._waiting.clear()
        for value in values:
            if not math.isfinite(value):
                step = self._first_step + len(self._read)
                raise DivergedError(f"loss is {value} at step {step}")
            self._read.append(value)
        return self._read
