"""How long a network takes on the device that trains it, beside work that is always the same."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.training.devices import timed_convolutions
from archspec.training.step import autocast_dtype

_REPEATS = 10


@dataclass(frozen=True)
class Latency:
    """Medians in seconds: of a forward pass of one patch, and of the calibration beside it."""

    seconds: float
    calibration: float


def measure_latency(planned: Plan, device: torch.device) -> Latency:
    """Time the network and the calibration in turns, so that both meet the same other load.

    Wall time of one patch without gradients, in the precision that trains. The calibration is ten
    convolutions of 16 channels, alike for every network and machine.
    """
    net = build_plan(planned).to(device).eval()
    x = torch.randn(1, planned.in_channels, *planned.patch_size, device=device)
    dtype = autocast_dtype(device)

    @torch.no_grad()
    def forward() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            net(x)

    runs = forward, _calibration(device)
    times: tuple[list[float], list[float]] = ([], [])
    with timed_convolutions(device):
        for repeat in range(_REPEATS + 1):
            for run, own in zip(runs, times, strict=True):
                seconds = _timed(run, device)
                if repeat:  # the first warms up
                    own.append(seconds)
    return Latency(*map(statistics.median, times))


def _calibration(device: torch.device) -> Callable[[], None]:
    x = torch.zeros(1, 16, 20, 28, 20, device=device)
    weight = torch.zeros(16, 16, 3, 3, 3, device=device)

    @torch.no_grad()
    def run() -> None:
        for _ in range(10):
            nn.functional.conv3d(x, weight, padding=1)

    return run


def _timed(run: Callable[[], None], device: torch.device) -> float:
    _wait_for(device)
    began = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
