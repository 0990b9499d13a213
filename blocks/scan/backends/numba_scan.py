"""Kernel of the selective scan's forward pass: one task is a batch item and a block of channels.

Legend: batch item, k direction, n state, t token of a segment in scan order. Of the arrays, u and
delta are (B, K, L, D), A (K, D, N), B and C (B, K, L, N), D and bias (K, D), z and out (B, L, D),
boundaries (B, K, segments, D, N).

A segment's tokens are first copied into buffers, in scan order; then each state runs over the
segment in registers.
"""

from typing import Any

import numpy as np
from numba import njit

from blocks.scan.backends.numba_math import LOG2E, exp2, sigmoid, softplus
from blocks.scan.backends.numba_memory import load, load_one, read, store, write
from blocks.scan.backends.numba_rows import SEGMENT, copy_states, fill_rows
from blocks.scan.backends.numba_simd import LANES, fma


@njit(error_model="numpy")
def load_rates(A: Any, k: Any, first: Any, count: Any, rates: Any) -> None:
    """Fill the (N, LANES) buffer with A in units of log 2; lanes without a channel get 0."""
    rates[:] = 0.0
    for n in range(A.shape[2]):
        for i in range(count):
            rates[n * LANES + i] = A[k, first + i, n] * LOG2E


def forward(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    bias: Any,
    z: Any,
    gated: bool,
    orders: Any,
    out: Any,
    boundaries: Any,
    batch: int,
    first: int,
) -> None:
    """Write out and boundaries of the channels from `first` on."""
    length = u.shape[2]
    states = A.shape[2]
    last = u.shape[1] - 1
    count = min(LANES, u.shape[3] - first)
    pairs = (states + 1) // 2 * 2
    width = (states + LANES - 1) // LANES * LANES
    rows = np.empty(SEGMENT, np.int64)
    rates = np.zeros(width * LANES, u.dtype)
    h = np.empty(width * LANES, u.dtype)
    dt = np.empty(SEGMENT * LANES, u.dtype)
    dtu = np.empty(SEGMENT * LANES, u.dtype)
    y = np.empty(SEGMENT * LANES, u.dtype)
    Bs = np.zeros(SEGMENT * width, u.dtype)
    Cs = np.zeros(SEGMENT * width, u.dtype)
    for k in range(last + 1):
        load_rates(A, k, first, count, rates)
        h[:] = 0.0
        bias_ = read(bias, (k, first), count)
        skip = read(D, (k, first), count)
        for segment in range((length + SEGMENT - 1) // SEGMENT):
            for i in range(count):
                for n in range(states):
                    boundaries[batch, k, segment, first + i, n] = h[n * LANES + i]
            steps = fill_rows(rows, orders[k], length, segment * SEGMENT)
            for t in range(steps):
                row = rows[t]
                u_ = read(u, (batch, k, row, first), count)
                dt_ = softplus(read(delta, (batch, k, row, first), count) + bias_)
                store(dt, t * LANES, dt_)
                store(dtu, t * LANES, dt_ * u_)
                store(y, t * LANES, skip * u_)
                copy_states(B, batch, k, row, Bs, t * width)
                copy_states(C, batch, k, row, Cs, t * width)
            # two states at once, so that one load of dt, dt u and y serves both
            for n in range(0, pairs, 2):
                rate, rate_ = load(rates, n * LANES), load(rates, (n + 1) * LANES)
                h_, h__ = load(h, n * LANES), load(h, (n + 1) * LANES)
                for t in range(steps):
                    dt_, dtu_ = load(dt, t * LANES), load(dtu, t * LANES)
                    at = t * width + n
                    h_ = fma(exp2(dt_ * rate), h_, dtu_ * load_one(Bs, at))
                    h__ = fma(exp2(dt_ * rate_), h__, dtu_ * load_one(Bs, at + 1))
                    y_ = fma(h_, load_one(Cs, at), load(y, t * LANES))
                    store(y, t * LANES, fma(h__, load_one(Cs, at + 1), y_))
                store(h, n * LANES, h_)
                store(h, (n + 1) * LANES, h__)
            for t in range(steps):
                place = (batch, rows[t], first)
                y_ = load(y, t * LANES)
                if k > 0:
                    y_ = y_ + read(out, place, count)
                if gated and k == last:
                    z_ = read(z, place, count)
                    y_ = y_ * z_ * sigmoid(z_)
                write(out, place, count, y_)
