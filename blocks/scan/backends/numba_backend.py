"""The scan operators on CPUs: kernels compiled by numba, run on torch's number of threads.

The channels lie side by side in memory, and a block of them fills a vector register; a scan order
is only a choice of rows, so nothing is permuted. Tasks never share a sum whose order could depend
on the threads: results are the same bits for any number of threads.

Legend: B batch, K directions, L tokens, D channels, N states, W taps.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.scan.backends import numba_conv, numba_scan, numba_scan_backward
from blocks.scan.backends.numba_kernel import Kernel
from blocks.scan.backends.numba_rows import SEGMENT
from blocks.scan.backends.numba_simd import LANES
from blocks.scan.orders import check_order

MIN_MACRO, MAX_MACRO = 256, 2048
"""Tokens between two sums of dB and dC over channels: fewer need less memory, more less waiting."""

ADDED_AT_ONCE = 8
"""Segments of dB and dC that one task sums."""

_scan = Kernel(numba_scan.forward)
_scan_backward = Kernel(numba_scan_backward.backward)
_add_parts = Kernel(numba_scan_backward.add_parts)
_conv = Kernel(numba_conv.forward)
_conv_backward = Kernel(numba_conv.backward)

Array = np.ndarray[Any, Any]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    orders: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return out (B, L, D) and the state before each segment, (B, K, segments, D, N)."""
    _check_scan(u, delta, A, B, C, D, delta_bias, z, orders)
    wide = _wide(u, delta, A, B, C, D, delta_bias, z)
    batch, directions, length, channels = u.shape
    segments = -(-length // SEGMENT)
    out = torch.empty(batch, length, channels, dtype=wide)
    boundaries = torch.empty(batch, directions, max(2, segments), channels, A.shape[-1], dtype=wide)
    boundaries[:, :, segments:] = 0
    inputs = _arrays(wide, u, delta, A, B, C, D, delta_bias, out if z is None else z)
    fixed = (*inputs, z is not None, np.array(orders, np.int64), out.numpy(), boundaries.numpy())
    _run(_scan, fixed, [(b, first) for b in range(batch) for first in range(0, channels, LANES)])
    return out.to(u.dtype), boundaries


def selective_scan_backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    boundaries: Tensor,
    orders: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, delta, A, B, C, D, delta_bias and z, float32 or wider.

    Beside them it needs memory for at most `MAX_MACRO` tokens, whatever L is.
    """
    _check_scan(u, delta, A, B, C, D, delta_bias, z, orders)
    wide = _wide(u, delta, A, B, C, D, delta_bias, z)
    batch, directions, length, channels = u.shape
    states, segments = A.shape[-1], -(-length // SEGMENT)
    _check("grad", grad, (batch, length, channels))
    _check("boundaries", boundaries, (batch, directions, max(2, segments), channels, states))
    du, ddelta, dB, dC = (torch.empty(t.shape, dtype=wide) for t in (u, delta, B, C))
    dA, dD, dbias = (torch.zeros(batch, *t.shape, dtype=wide) for t in (A, D, delta_bias))
    dz = torch.empty(0 if z is None else z.shape, dtype=wide)
    blocks = -(-channels // LANES)
    macro = min(segments, max(MIN_MACRO, min(MAX_MACRO, length // 8)) // SEGMENT)
    parts = dA.new_empty(batch, blocks, 2, states, macro * SEGMENT).numpy()
    gradient, *inputs, saved = _arrays(
        wide, grad, u, delta, A, B, C, D, delta_bias, grad if z is None else z, boundaries
    )
    results = [t.numpy() for t in (du, ddelta, dA, dD, dbias, dB[0] if z is None else dz)]
    sums = (parts, dB.numpy(), dC.numpy())
    for k, order in enumerate(orders):
        adjoints = dA.new_zeros(batch, blocks, states, LANES).numpy()
        fixed = (gradient, *inputs, z is not None, saved, order, *results, adjoints, parts)
        for end in range(segments, 0, -macro):
            begin = max(0, end - macro)
            tasks = [(b, k, block, begin, end) for b in range(batch) for block in range(blocks)]
            _run(_scan_backward, fixed, tasks)
            some = [
                (first, min(first + ADDED_AT_ONCE, end))
                for first in range(begin, end, ADDED_AT_ONCE)
            ]
            tasks = [(b, k, begin, *part) for b in range(batch) for part in some]
            _run(_add_parts, (*sums, order), tasks)
    return du, ddelta, dA.sum(0), dB, dC, dD.sum(0), dbias.sum(0), dz


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    """Return silu of the causal convolution of x (B, L, D) in each order: (B, K, L, D)."""
    _check_conv(x, weight, bias, orders)
    wide = _wide(x, weight, bias)
    batch, length, channels = x.shape
    out = torch.empty(batch, len(orders), length, channels, dtype=wide)
    fixed = (*_arrays(wide, x, weight, bias), np.array(orders, np.int64), out.numpy())
    _run(_conv, fixed, [(b, first) for b in range(batch) for first in range(0, channels, LANES)])
    return out.to(x.dtype)


def causal_conv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, float32 or wider."""
    _check_conv(x, weight, bias, orders)
    wide = _wide(x, weight, bias)
    batch, length, channels = x.shape
    _check("grad", grad, (batch, len(orders), length, channels))
    dx = torch.empty(x.shape, dtype=wide)
    dweight, dbias = (torch.empty(batch, *t.shape, dtype=wide) for t in (weight, bias))
    results = (t.numpy() for t in (dx, dweight, dbias))
    fixed = (*_arrays(wide, grad, x, weight, bias), np.array(orders, np.int64), *results)
    _run(
        _conv_backward,
        fixed,
        [(b, first) for b in range(batch) for first in range(0, channels, LANES)],
    )
    return dx, dweight.sum(0), dbias.sum(0)


def _check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    orders: Sequence[int],
) -> None:
    """Refuse what the kernels, which check nothing, would read outside of its memory."""
    directions = len(orders)
    batch, _, length, channels = u.shape if u.ndim == 4 else (0, 0, 0, 0)
    states = A.shape[-1] if A.ndim == 3 else 0
    _check("u", u, (batch, directions, length, channels))
    _check("delta", delta, (batch, directions, length, channels))
    _check("A", A, (directions, channels, states))
    _check("B", B, (batch, directions, length, states))
    _check("C", C, (batch, directions, length, states))
    _check("D", D, (directions, channels))
    _check("delta_bias", delta_bias, (directions, channels))
    if z is not None:
        _check("z", z, (batch, length, channels))
    for order in orders:
        check_order(order, length)


def _check_conv(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> None:
    batch, length, channels = x.shape if x.ndim == 3 else (0, 0, 0)
    taps = weight.shape[-1] if weight.ndim == 3 else 0
    _check("x", x, (batch, length, channels))
    _check("weight", weight, (len(orders), channels, taps))
    _check("bias", bias, (len(orders), channels))
    for order in orders:
        check_order(order, length)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape or 0 in shape:
        raise ValueError(f"numba backend: {name} must be {shape}, but is {tuple(tensor.shape)}")
    if tensor.device.type != "cpu" or not tensor.is_floating_point():
        raise ValueError(
            f"numba backend: {name} must hold floats on the CPU, "
            f"but is {tensor.dtype} on {tensor.device}"
        )


def _wide(*tensors: Tensor | None) -> torch.dtype:
    wide = torch.float32
    for tensor in tensors:
        if tensor is not None:
            wide = torch.promote_types(wide, tensor.dtype)
    return wide


def _arrays(dtype: torch.dtype, *tensors: Tensor) -> list[Array]:
    """View tensors as arrays; copy only another type, or values that are not side by side."""
    found = (t.detach().to(dtype) for t in tensors)
    return [(t if t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()).numpy() for t in found]


_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
"""By process, as threads do not survive a fork, and number of threads."""


def _run(kernel: Kernel, fixed: tuple[Any, ...], tasks: Sequence[tuple[int, ...]]) -> None:
    """Call the kernel for every task, on torch's number of threads."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads == 1:
        for task in tasks:
            kernel(*fixed, *task)
        return
    key = (os.getpid(), torch.get_num_threads())
    if key not in _pools:
        _pools.setdefault(key, ThreadPoolExecutor(key[1], "archspec-scan"))
    for _ in _pools[key].map(lambda task: kernel(*fixed, *task), tasks):
        pass
