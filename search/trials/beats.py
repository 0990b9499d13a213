"""How far a training is between its rungs: noted by its worker, told by the pool now and then.

Both share the memory it stands in, so that a worker waits for nobody who would read it.
"""

import ctypes
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

EVERY = 2.0
"""Seconds between two beats of a trial, at least."""


class Shared(ctypes.Structure):
    """What a worker and the driver share: the worker's `heart`, and its trial's last step.

    `step` is negative before the first, `loss` NaN before one is known.
    """

    heart: int
    step: int
    loss: float
    _fields_: ClassVar = [
        ("heart", ctypes.c_uint64),
        ("step", ctypes.c_int64),
        ("loss", ctypes.c_double),
    ]

    def note(self, step: int, loss: float | None) -> None:
        """Note that so many steps are done, and the last loss where that is known."""
        if loss is not None:
            self.loss = loss
        self.step = step


@dataclass(frozen=True)
class Beat:
    """A trial after so many steps; its loss is that of one of the last, None before one is read."""

    step: int
    loss: float | None


class Pulse:
    """The driver's look at what a worker notes."""

    def __init__(self, shared: Shared, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Forget a trial that has ended."""
        self._shared.step, self._shared.loss = -1, math.nan
        self._told, self._at = -1, -math.inf

    def news(self) -> Beat | None:
        """Return how far the trial is; None where it was not long ago, or is as before."""
        step, loss, now = self._shared.step, self._shared.loss, self._clock()
        if step == self._told or now - self._at < EVERY:
            return None
        self._told, self._at = step, now
        return Beat(step, None if math.isnan(loss) else loss)
