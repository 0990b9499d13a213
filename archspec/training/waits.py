"""How long a device had nothing to do since its next batch was not there."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from archspec.training.step import Batch


class Waits:
    """Takes batches from an iterator, and tells for how many seconds the device waited for them.

    Steps do not wait for a GPU, so that its driver may wait for a batch while the GPU still has
    work: there the GPU's own clock is read, before and after, once it has got there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._spans: list[tuple[Any, Any]] = []

    def next(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch."""
        before = self._moment()
        batch = next(batches)
        self._spans.append((before, self._moment()))
        return batch

    def seconds(self) -> float:
        """Return the seconds so far; a GPU must have done the steps that it was given."""
        for before, after in self._spans:
            if self._device.type == "cuda":
                self._seconds += before.elapsed_time(after) / 1e3
            else:
                self._seconds += after - before
        self._spans.clear()
        return self._seconds

    def _moment(self) -> Any:
        if self._device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
