"""Measure a network on this machine, beside what was estimated for it."""

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from archspec.costs.energy import energy_counter
from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from archspec.costs.profile import Energy, Estimated, Measured, Profile
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.training.devices import device_named, timed_convolutions
from archspec.training.step import autocast_dtype
from blocks.scan.dispatch import chosen

_CPUINFO = Path("/proc/cpuinfo")
_PEAK = Path("/proc/self/clear_refs")


def profile_plan(
    planned: Plan,
    *,
    device: str = "cpu",
    batch: int = 1,
    amp: bool | None = None,
    repeats: int = 5,
) -> Profile:
    """Run forward passes and training steps; return medians beside the estimates.

    With `amp` they are in mixed precision; None means as a trial trains on the device: on a GPU.
    A step is forward, cross-entropy against random labels, backward and SGD with momentum. Times
    are in seconds of the wall clock, memory in bytes, energy in joules of a step. On CPU memory is
    the growth of the process's resident set from before the network was built, where Linux tells
    it; compiled kernels of the scan are in it.

    Raises:
        SpecError: the device is not here.
    """
    target = device_named(device)
    before = _resident(target)
    torch.manual_seed(0)
    net = build_plan(planned).to(target)
    x = torch.randn(batch, planned.in_channels, *planned.patch_size, device=target)
    labels = torch.randint(planned.num_classes, (batch, *planned.patch_size), device=target)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    trained = autocast_dtype(target)
    amp = trained is not None if amp is None else amp
    dtype = trained or torch.bfloat16
    scaler = torch.amp.GradScaler(target.type, enabled=amp and dtype == torch.float16)

    def forward() -> None:
        with torch.no_grad(), torch.autocast(target.type, dtype, enabled=amp):
            net(x)

    def step() -> None:
        with torch.autocast(target.type, dtype, enabled=amp):
            loss = nn.functional.cross_entropy(_logits(net(x)), labels)
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()

    with timed_convolutions(target):
        if target.type == "cuda":
            step()  # cuDNN times its algorithms, in memory that no later step needs
        _reset_peak(target)
        step()
        peak = _peak(target, before)
        seconds_forward = _times(forward, target, repeats)
        counter = energy_counter(target)
        start = 0.0 if isinstance(counter, str) else counter.joules()
        seconds_step = _times(step, target, repeats)
        energy = (
            Energy(counter, None)
            if isinstance(counter, str)
            else Energy(
                counter.source, (counter.joules() - start) / (repeats + 1)
            )  # one to warm up
        )
    cost = cost_plan(planned)
    return Profile(
        name=planned.spec.name,
        input=(batch, planned.in_channels, *planned.patch_size),
        amp=str(dtype).removeprefix("torch.") if amp else None,
        measured=Measured(
            forward_seconds=statistics.median(seconds_forward),
            step_seconds=statistics.median(seconds_step),
            peak_bytes=peak,
            energy=energy,
            repeats=repeats,
            all_step_seconds=tuple(seconds_step),
        ),
        estimated=Estimated(
            flops=batch * cost.flops,
            macs=batch * cost.macs,
            scan_flops=batch * cost.scan_flops,
            memory_bytes=training_memory(planned, batch=batch, amp=amp, optimizer="sgd").total,
        ),
        device=target.type,
        hardware=_hardware(target),
        versions={"torch": torch.__version__, "python": platform.python_version()},
        scan_backend=chosen(target) if cost.scan_flops else None,
        date=datetime.date.today().isoformat(),
    )


def _logits(out: Tensor | list[Tensor]) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _times(run: Callable[[], None], device: torch.device, repeats: int) -> list[float]:
    run()
    found = []
    for _ in range(repeats):
        _synchronize(device)
        start = time.perf_counter()
        run()
        _synchronize(device)
        found.append(time.perf_counter() - start)
    return found


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(_PEAK, os.W_OK):
        _PEAK.write_text("5", "ascii")


def _resident(device: torch.device) -> int:
    """Return the resident bytes of this process; 0 on CUDA."""
    return 0 if device.type == "cuda" else (_status("VmRSS") or 0)


def _peak(device: torch.device, before: int) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    highest = _status("VmHWM") if os.access(_PEAK, os.W_OK) else None
    return None if highest is None else highest - before


def _status(field: str) -> int | None:
    path = Path("/proc/self/status")
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")]
    return values[0] if values else None


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = _CPUINFO.read_text("utf-8", "replace").splitlines() if _CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s)"
