"""Kernels of the causal convolution with SiLU: one task is a batch item and a block of channels.

Legend: batch item, k direction, W taps; x (B, L, D), weight (K, D, W), bias (K, D). Tap w of
position j reads position j - (W - 1) + w.
"""

from typing import Any

import numpy as np
from numba import njit

from blocks.scan.backends.numba_math import sigmoid
from blocks.scan.backends.numba_memory import load, read, store, write
from blocks.scan.backends.numba_rows import SEGMENT, fill_rows, token_at
from blocks.scan.backends.numba_simd import LANES, const, fma


@njit(error_model="numpy")
def _load_taps(weight: Any, k: Any, first: Any, count: Any, taps: Any) -> None:
    for w in range(weight.shape[2]):
        for i in range(count):
            taps[w * LANES + i] = weight[k, first + i, w]


@njit(forceinline=True, error_model="numpy")
def _convolve(bias: Any, taps: Any, window: Any, t: Any) -> Any:
    total = bias
    for w in range(taps.size // LANES):
        total = fma(load(taps, w * LANES), load(window, (t + w) * LANES), total)
    return total


def forward(x: Any, weight: Any, bias: Any, orders: Any, out: Any, batch: int, first: int) -> None:
    """Write out (B, K, L, D) of the channels from `first` on, in token order."""
    length = x.shape[1]
    past = weight.shape[2] - 1
    count = min(LANES, x.shape[2] - first)
    rows = np.empty(SEGMENT, np.int64)
    taps = np.zeros((past + 1) * LANES, x.dtype)
    window = np.empty((past + SEGMENT) * LANES, x.dtype)
    for k in range(orders.size):
        _load_taps(weight, k, first, count, taps)
        bias_ = read(bias, (k, first), count)
        window[:] = 0.0
        for start in range(0, length, SEGMENT):
            steps = fill_rows(rows, orders[k], length, start)
            for t in range(steps):
                store(window, (past + t) * LANES, read(x, (batch, rows[t], first), count))
            for t in range(steps):
                total = _convolve(bias_, taps, window, t)
                write(out, (batch, k, rows[t], first), count, total * sigmoid(total))
            for i in range(past):
                store(window, i * LANES, load(window, (steps + i) * LANES))


def backward(
    grad: Any,
    x: Any,
    weight: Any,
    bias: Any,
    orders: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    batch: int,
    first: int,
) -> None:
    """Write dx (B, L, D), dweight (B, K, D, W) and dbias (B, K, D) of the channels from `first`."""
    length = x.shape[1]
    past = weight.shape[2] - 1
    count = min(LANES, x.shape[2] - first)
    rows = np.empty(SEGMENT, np.int64)
    taps = np.zeros((past + 1) * LANES, x.dtype)
    dtaps = np.empty((past + 1) * LANES, x.dtype)
    window = np.empty((past + SEGMENT) * LANES, x.dtype)
    slopes = np.empty((past + SEGMENT) * LANES, x.dtype)
    for k in range(orders.size):
        _load_taps(weight, k, first, count, taps)
        bias_ = read(bias, (k, first), count)
        zero = const(bias_, 0.0)
        one = const(bias_, 1.0)
        total_slope = zero
        dtaps[:] = 0.0
        slopes[:] = 0.0
        for segment in range((length - 1) // SEGMENT, -1, -1):
            start = segment * SEGMENT
            steps = fill_rows(rows, orders[k], length, start)
            for i in range(past):
                position = start - past + i
                value = zero
                if position >= 0:
                    value = read(x, (batch, token_at(orders[k], length, position), first), count)
                store(window, i * LANES, value)
            for i in range(past - 1, -1, -1):
                store(slopes, (steps + i) * LANES, load(slopes, i * LANES))
            for t in range(steps):
                store(window, (past + t) * LANES, read(x, (batch, rows[t], first), count))
            for t in range(steps):
                total = _convolve(bias_, taps, window, t)
                share = sigmoid(total)
                slope = share * fma(total, one - share, one)
                slope = slope * read(grad, (batch, k, rows[t], first), count)
                store(slopes, t * LANES, slope)
                total_slope = total_slope + slope
            for w in range(past + 1):
                part = zero
                for t in range(steps):
                    part = fma(load(slopes, t * LANES), load(window, (t + w) * LANES), part)
                store(dtaps, w * LANES, load(dtaps, w * LANES) + part)
            for t in range(steps):
                dx_ = zero
                if k > 0:
                    dx_ = read(dx, (batch, rows[t], first), count)
                for w in range(past + 1):
                    dx_ = fma(load(taps, w * LANES), load(slopes, (t + past - w) * LANES), dx_)
                write(dx, (batch, rows[t], first), count, dx_)
        write(dbias, (batch, k, first), count, total_slope)
        for w in range(past + 1):
            for i in range(count):
                dweight[batch, k, first + i, w] = dtaps[w * LANES + i]
