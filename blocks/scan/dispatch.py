"""Choose the backend of the scan operators: the first that works here when really run.

Nothing is probed at import; the first call on a device runs a small scan, forward and backward,
on each candidate and compares it with the reference. `ARCHSPEC_SCAN=<name>` forces one, and
`archspec doctor --tune` may put another one first (`blocks.scan.tuned`); no timing decides here.
"""

import functools
import os
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from blocks.base import SpecError
from blocks.errors import reason
from blocks.scan.backend import Backend
from blocks.scan.capture import refuse_in_capture
from blocks.scan.tuned import tuned_backend

NAMES = ("reference", "kscan", "numba", "triton", "mamba_ssm")
VARIABLE = "ARCHSPEC_SCAN"
TIMED = "4096 tokens x 96 channels x 3, forward + backward"
GPU_SIZES, GPU_SLICES, GPU_TOLERANCE = (130, 33, 16), 13, 3e-2
"""Tokens, channels and states that a GPU is probed with; several backends round on the way."""
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
        return _first_that_works(_placed(device))
    if forced not in NAMES:
        raise SpecError(
            "not a scan backend", where=f"{VARIABLE}={forced}", allowed=", ".join(NAMES)
        )
    problem = why_not(forced, device)
    if problem is not None:
        raise SpecError(f"does not work on {device}: {problem}", where=f"{VARIABLE}={forced}")
    return forced


def why_not(name: str, device: torch.device | str) -> str | None:
    """Run a small scan on a backend; return why it cannot be used here, or None.

    Raises:
        RuntimeError: it was not yet run here, and a CUDA graph is being captured.
    """
    return _why_not(name, _placed(device))


@functools.cache
def _why_not(name: str, device: torch.device) -> str | None:
    refuse_in_capture(device)
    try:
        _probe(_load(name), device)
    except Exception as error:  # whatever a compiler, a driver or a package raises
        name, why = type(error).__name__, reason(error)
        return name if why == name else f"{name}: {why}"
    return None


@functools.cache
def _first_that_works(device: torch.device) -> str:
    refuse_in_capture(device)
    candidates: tuple[str, ...] = _CANDIDATES.get(device.type, ("kscan",))
    tuned = tuned_backend(device)
    if tuned is not None:
        candidates = (tuned, *(name for name in candidates if name != tuned))
    name = next((name for name in candidates if why_not(name, device) is None), "kscan")
    if name != candidates[0]:
        reason = why_not(candidates[0], device)
        warnings.warn(
            f"archspec: the {candidates[0]} scan does not work on {device} ({reason}); "
            f"{name} is slower; `archspec doctor` tells more",
            stacklevel=2,
        )
    return name


def _placed(device: torch.device | str) -> torch.device:
    """Return the device with its index where it is a GPU: those of one machine may differ."""
    device = torch.device(device)
    if device.type != "cuda":
        return torch.device(device.type)
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def candidates(device_type: str) -> tuple[str, ...]:
    """Return the backends that can run on a kind of device, best first."""
    found = _CANDIDATES.get(device_type, ("kscan",))
    return (*found, *(("mamba_ssm",) if device_type == "cuda" else ()), "reference")


def seconds(
    name: str,
    device: torch.device | str,
    *,
    length: int = 4096,
    channels: int = 96,
    dtype: torch.dtype = torch.float32,
    repeats: int = 3,
) -> float:
    """Return the time of one scan and convolution, forward and backward; the best of several."""
    placed = _placed(device)
    run = _runner(_load(name), _inputs(placed, length, channels, 16, dtype), slices=16)
    run()
    found = []
    for _ in range(repeats):
        _wait(placed)
        start = time.perf_counter()
        run()
        _wait(placed)
        found.append(time.perf_counter() - start)
    return min(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
    """Compare a backend with the reference, in three orders.

    On a GPU over three segments in half precision, so that every kernel that training needs is
    compiled and run; elsewhere on six tokens.

    Raises:
        RuntimeError: a result is wrong.
    """
    if device.type == "cuda":
        low = torch.bfloat16 if _has_bfloat16(device) else torch.float16
        inputs = _inputs(device, *GPU_SIZES, low)
        _compare(backend, inputs, slices=GPU_SLICES, tolerance=GPU_TOLERANCE)
    else:
        _compare(backend, _inputs(device, 6, 5, 3), slices=3, tolerance=1e-4)


def _has_bfloat16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _compare(
    backend: Backend, inputs: tuple[Tensor, ...], *, slices: int, tolerance: float
) -> None:
    """Compare by each result's norm: elements near zero are as exact as the largest, not more."""
    found = _runner(backend, inputs, slices)()
    wanted = _runner(_load("reference"), inputs, slices)()
    for result, want in zip(found, wanted, strict=True):
        error = (result.double() - want.double()).norm()
        if not error <= tolerance * want.double().norm():  # an error that is no number fails too
            raise RuntimeError("its results differ from the reference's")


def _inputs(
    device: torch.device,
    length: int,
    channels: int,
    states: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, ...]:
    """Return u, delta, A, B, C, D, bias, z, x, weight; no random number, so that no seed moves.

    Tokens are of `dtype`, parameters of float32.
    """

    def wave(*shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.arange(count, dtype=torch.float32, device=device).mul(0.7).sin().view(shape)

    tokens = (1, 3, length)
    return (
        wave(*tokens, channels).to(dtype),
        wave(*tokens, channels).to(dtype),
        -1.2 - wave(3, channels, states),
        wave(*tokens, states).to(dtype),
        wave(*tokens, states).to(dtype),
        wave(3, channels),
        wave(3, channels),
        wave(1, length, channels).to(dtype),
        wave(1, length, channels).to(dtype),
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
