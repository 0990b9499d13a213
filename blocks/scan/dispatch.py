"""Choose the backend of the scan operators: the first that works here when really run.

Nothing is probed at import; the first call on a device runs a tiny scan, forward and backward,
on each candidate and compares it with the reference. `ARCHSPEC_SCAN=<name>` forces one.
"""

import functools
import importlib.util
import os
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from blocks.base import SpecError
from blocks.errors import reason
from blocks.scan.backend import Backend

NAMES = ("reference", "kscan", "numba", "triton", "mamba_ssm")
VARIABLE = "ARCHSPEC_SCAN"
TIMED = "4096 tokens x 96 channels x 3, forward + backward"
_FLOAT64 = ("reference", "kscan", "numba")
_CANDIDATES = {"cpu": ("numba", "kscan"), "cuda": ("triton", "kscan")}


def backend_for(device: torch.device, dtype: torch.dtype) -> Backend:
    """Return the backend for tensors computed in `dtype` on a device.

    Float64 goes to kscan where the chosen backend has none.

    Raises:
        SpecError: ARCHSPEC_SCAN names no backend, or one that does not work here.
    """
    name = chosen(device)
    if dtype == torch.float64 and name not in _FLOAT64:
        name = "kscan"
    return _load(name)


def chosen(device: torch.device) -> str:
    """Return the name of the backend that scans on a device.

    Raises:
        SpecError: ARCHSPEC_SCAN names no backend, or one that does not work here.
    """
    forced = os.environ.get(VARIABLE)
    if not forced:
        return _first_that_works(device.type)
    if forced not in NAMES:
        raise SpecError(
            "not a scan backend", where=f"{VARIABLE}={forced}", allowed=", ".join(NAMES)
        )
    problem = why_not(forced, device.type)
    if problem is not None:
        raise SpecError(f"does not work on {device.type}: {problem}", where=f"{VARIABLE}={forced}")
    return forced


@functools.cache
def why_not(name: str, device_type: str) -> str | None:
    """Run a tiny scan on a backend; return why it cannot be used here, or None."""
    try:
        _probe(_load(name), torch.device(device_type))
    except Exception as error:  # whatever a compiler, a driver or a package raises
        name, why = type(error).__name__, reason(error)
        return name if why == name else f"{name}: {why}"
    return None


@functools.cache
def _first_that_works(device_type: str) -> str:
    candidates = _CANDIDATES.get(device_type, ("kscan",))
    name = next((name for name in candidates if why_not(name, device_type) is None), "kscan")
    if name != candidates[0]:
        reason = why_not(candidates[0], device_type)
        warnings.warn(
            f"archspec: the {candidates[0]} scan does not work on {device_type} ({reason}); "
            f"{name} is slower; `archspec doctor` tells more",
            stacklevel=2,
        )
    if device_type == "cuda" and importlib.util.find_spec("mamba_ssm") is not None:
        return _faster(name, "mamba_ssm", device_type)
    return name


def candidates(device_type: str) -> tuple[str, ...]:
    """Return the backends that can run on a kind of device, best first."""
    found = _CANDIDATES.get(device_type, ("kscan",))
    return (*found, *(("mamba_ssm",) if device_type == "cuda" else ()), "reference")


def _faster(name: str, other: str, device_type: str) -> str:
    """Return `other` where it works and one scan shows it faster, else `name`."""
    if why_not(other, device_type) is not None:
        return name
    return min((name, other), key=lambda candidate: seconds(candidate, device_type))


def seconds(name: str, device_type: str, *, length: int = 4096, channels: int = 96) -> float:
    """Return the time of one scan and convolution, forward and backward; the best of three."""
    run = _runner(_load(name), _inputs(torch.device(device_type), length, channels, 16), slices=16)
    run()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        if device_type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def _load(name: str) -> Backend:
    """Import a backend; only here, so that numba and Triton load when used."""
    if name == "numba":
        from blocks.scan.backends import numba_backend

        return numba_backend
    if name == "triton":
        from blocks.scan.backends import triton_backend

        return triton_backend
    if name == "mamba_ssm":
        from blocks.scan.backends import mamba_ssm_backend

        return mamba_ssm_backend
    if name == "kscan":
        from blocks.scan.backends import kscan

        return kscan
    from blocks.scan.backends import reference

    return reference


def _probe(backend: Backend, device: torch.device) -> None:
    """Compare a backend with the reference on six tokens in three orders.

    Raises:
        RuntimeError: a result is wrong.
    """
    inputs = _inputs(device, length=6, channels=5, states=3)
    found = _runner(backend, inputs, slices=3)()
    wanted = _runner(_load("reference"), inputs, slices=3)()
    for result, want in zip(found, wanted, strict=True):
        if not torch.allclose(result.float(), want.float(), rtol=1e-3, atol=1e-4):
            raise RuntimeError("its results differ from the reference's")


def _inputs(device: torch.device, length: int, channels: int, states: int) -> tuple[Tensor, ...]:
    """Return u, delta, A, B, C, D, bias, z, x, weight; no random number, so that no seed moves."""

    def wave(*shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.arange(count, dtype=torch.float32, device=device).mul(0.7).sin().view(shape)

    tokens = (1, 3, length)
    return (
        wave(*tokens, channels),
        wave(*tokens, channels),
        -1.2 - wave(3, channels, states),
        wave(*tokens, states),
        wave(*tokens, states),
        wave(3, channels),
        wave(3, channels),
        wave(1, length, channels),
        wave(1, length, channels),
        wave(3, channels, 4),
    )


def _runner(
    backend: Backend, inputs: tuple[Tensor, ...], slices: int
) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that runs all of a backend's functions, and gives their results."""
    u, delta, A, B, C, D, bias, z, x, weight = inputs
    orders = (1, -1, slices)
    scan = (u, delta, A, B, C, D, bias, z)

    def run() -> tuple[Tensor, ...]:
        with torch.no_grad():
            out, boundaries = backend.selective_scan(*scan, orders)
            grads = backend.selective_scan_backward(z, *scan, boundaries, orders)
            convolved = backend.causal_conv1d(x, weight, bias, orders)
            conv_grads = backend.causal_conv1d_backward(u, x, weight, bias, orders)
        return (out, *grads, convolved, *conv_grads)

    return run
