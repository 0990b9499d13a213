"""What a device waited for is told by its own clock."""

import time

import pytest
import torch
from torch import Tensor

from archspec.training.waits import Waits

BATCH = (torch.zeros(1), torch.zeros(1))


def test_a_cpu_waits_while_a_batch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    waits = Waits(torch.device("cpu"))
    for _ in range(2):
        assert waits.next(iter([BATCH])) is BATCH
    assert waits.seconds() == 3.5
    assert waits.seconds() == 3.5


def test_a_gpu_waits_from_the_end_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver asks at 0 s for a batch that is there at 3 s; the GPU has work up to 2 s."""
    now = 0.0

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            assert stream == "stream of cuda:1"
            self.at = max(now, 2.0)

        def elapsed_time(self, later: "Event") -> float:
            return 1e3 * (later.at - self.at)

    def batches() -> Tensor:
        nonlocal now
        now = 3.0
        yield BATCH

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    waits = Waits(torch.device("cuda:1"))
    waits.next(batches())
    assert waits.seconds() == 1.0
