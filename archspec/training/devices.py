"""From a device's name on the command line to the device, and how convolutions run on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn

from blocks.errors import SpecError, argument

_NAMES = "must be auto, cpu, cuda or cuda:1"


def device_named(name: str) -> torch.device:
    """Return the device; `auto` is a GPU where PyTorch sees one, else the CPU.

    Raises:
        SpecError: neither auto, cpu nor cuda, or not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(_NAMES, where=argument("device", name)) from None
    if device.type not in ("cpu", "cuda"):
        raise SpecError(_NAMES, where=argument("device", name))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            "PyTorch sees no such device here",
            where=argument("device", name),
            suggestion="see archspec doctor",
        )
    return device


def devices_for(name: str, jobs: int) -> tuple[str, ...]:
    """Return one device per worker; `cuda`, and `auto` where it is one, take one GPU each.

    Raises:
        SpecError: as `device_named`.
    """
    named = device_named(name)
    if named.type == "cuda" and named.index is None:
        return tuple(f"cuda:{i}" for i in range(min(jobs, torch.cuda.device_count())))
    return (str(named),) * jobs


@contextmanager
def timed_convolutions(device: torch.device) -> Iterator[None]:
    """Let cuDNN time its algorithms at every new shape and keep the fastest, as nnU-Net does.

    A training sees few shapes, many times. Which algorithm wins may differ between runs, and with
    it the last bits; `cudnn.deterministic`, where somebody set it, still holds. Nothing on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    before, cudnn.benchmark = cudnn.benchmark, True
    try:
        yield
    finally:
        cudnn.benchmark = before
