"""Kernels of the selective scan's backward pass, with `numba_scan`'s legend and layout.

A task goes over some segments of one direction, last to first. Each state's values inside a
segment are computed again from its boundary, into buffers that stay in the processor's cache.
dB and dC are sums over channels: every task writes its part, `add_parts` adds them in fixed order.
"""

from typing import Any

import numpy as np

from blocks.scan.backends.numba_math import exp2, sigmoid, softplus
from blocks.scan.backends.numba_memory import load, load_one, read, store, write, write_sums
from blocks.scan.backends.numba_rows import SEGMENT, copy_states, fill_rows
from blocks.scan.backends.numba_scan import load_rates
from blocks.scan.backends.numba_simd import LANES, const, fma

LN2 = 0.6931471805599453


def backward(
    grad: Any,
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    bias: Any,
    z: Any,
    gated: bool,
    boundaries: Any,
    order: int,
    du: Any,
    ddelta: Any,
    dA: Any,
    dD: Any,
    dbias: Any,
    dz: Any,
    adjoints: Any,
    parts: Any,
    batch: int,
    k: int,
    block: int,
    begin: int,
    end: int,
) -> None:
    """Go from segment `end` - 1 to `begin` of direction k for one block of channels.

    Written: du, ddelta. Added to: dA (B, K, D, N), dD and dbias (B, K, D); dz, which collects the
    output without its gate and becomes the gradient after the last direction's first segment.
    Carried: adjoints (B, blocks, N, LANES). Parts of dB and dC: parts (B, blocks, 2, N, tokens).
    """
    length = u.shape[2]
    states = A.shape[2]
    first = block * LANES
    count = min(LANES, u.shape[3] - first)
    width = (states + LANES - 1) // LANES * LANES
    rows = np.empty(SEGMENT, np.int64)
    rates = np.empty(states * LANES, u.dtype)
    h = np.zeros(states * LANES, u.dtype)
    dA_ = np.zeros(states * LANES, u.dtype)
    Bs = np.empty(SEGMENT * width, u.dtype)
    Cs = np.empty(SEGMENT * width, u.dtype)
    dt = np.empty(SEGMENT * LANES, u.dtype)
    dtu = np.empty(SEGMENT * LANES, u.dtype)
    dy = np.empty(SEGMENT * LANES, u.dtype)
    y = np.empty(SEGMENT * LANES, u.dtype)
    decays = np.empty(SEGMENT * LANES, u.dtype)
    before = np.empty(SEGMENT * LANES, u.dtype)
    ddt = np.empty(SEGMENT * LANES, u.dtype)
    dinput = np.empty(SEGMENT * LANES, u.dtype)
    dB = np.zeros(SEGMENT * LANES, u.dtype)
    dC = np.zeros(SEGMENT * LANES, u.dtype)
    load_rates(A, k, first, count, rates)
    bias_ = read(bias, (k, first), count)
    skip = read(D, (k, first), count)
    zero = const(skip, 0.0)
    for segment in range(end - 1, begin - 1, -1):
        for i in range(count):
            for n in range(states):
                h[n * LANES + i] = boundaries[batch, k, segment, first + i, n]
        steps = fill_rows(rows, order, length, segment * SEGMENT)
        for t in range(steps):
            row = rows[t]
            u_ = read(u, (batch, k, row, first), count)
            dt_ = softplus(read(delta, (batch, k, row, first), count) + bias_)
            dy_ = read(grad, (batch, row, first), count)
            if gated:
                z_ = read(z, (batch, row, first), count)
                dy_ = dy_ * z_ * sigmoid(z_)
            store(dt, t * LANES, dt_)
            store(dtu, t * LANES, dt_ * u_)
            store(dy, t * LANES, dy_)
            store(y, t * LANES, skip * u_)
            store(ddt, t * LANES, zero)
            store(dinput, t * LANES, zero)
            copy_states(B, batch, k, row, Bs, t * width)
            copy_states(C, batch, k, row, Cs, t * width)
        for n in range(states):
            rate = load(rates, n * LANES)
            h_ = load(h, n * LANES)
            for t in range(steps):
                decay = exp2(load(dt, t * LANES) * rate)
                store(decays, t * LANES, decay)
                store(before, t * LANES, h_)
                h_ = fma(decay, h_, load(dtu, t * LANES) * load_one(Bs, t * width + n))
                y_ = fma(h_, load_one(Cs, t * width + n), load(y, t * LANES))
                store(y, t * LANES, y_)
                store(dC, t * LANES, load(dy, t * LANES) * h_)
            place = (batch, block, n, 0)
            dh = read(adjoints, place, LANES)
            total = zero
            for t in range(steps - 1, -1, -1):
                dh = fma(load(dy, t * LANES), load_one(Cs, t * width + n), dh)
                dinput_ = fma(dh, load_one(Bs, t * width + n), load(dinput, t * LANES))
                store(dinput, t * LANES, dinput_)
                store(dB, t * LANES, dh * load(dtu, t * LANES))
                dh = dh * load(decays, t * LANES)
                dlog = dh * load(before, t * LANES)
                store(ddt, t * LANES, fma(dlog, rate, load(ddt, t * LANES)))
                total = fma(dlog, load(dt, t * LANES), total)
            write(adjoints, place, LANES, dh)
            store(dA_, n * LANES, load(dA_, n * LANES) + total)
            for t in range(0, steps, 8):
                token = (segment - begin) * SEGMENT + t
                write_sums(parts, (batch, block, 0, n, token), dB, t * LANES)
                write_sums(parts, (batch, block, 1, n, token), dC, t * LANES)
        dD_ = zero
        dbias_ = zero
        for t in range(steps):
            place = (batch, k, rows[t], first)
            u_ = read(u, place, count)
            slope = sigmoid(read(delta, place, count) + bias_)
            dy_, dinput_ = load(dy, t * LANES), load(dinput, t * LANES)
            ddelta_ = fma(dinput_, u_, load(ddt, t * LANES) * const(u_, LN2)) * slope
            write(du, place, count, fma(dinput_, load(dt, t * LANES), dy_ * skip))
            write(ddelta, place, count, ddelta_)
            dD_ = fma(dy_, u_, dD_)
            dbias_ = dbias_ + ddelta_
            if gated:
                place_ = (batch, rows[t], first)
                write(dz, place_, count, read(dz, place_, count) + load(y, t * LANES))
        place_ = (batch, k, first)
        write(dD, place_, count, read(dD, place_, count) + dD_)
        write(dbias, place_, count, read(dbias, place_, count) + dbias_)
    for i in range(count):
        for n in range(states):
            dA[batch, k, first + i, n] += dA_[n * LANES + i]
    if gated and begin == 0 and k == u.shape[1] - 1:
        for row in range(length):
            place_ = (batch, row, first)
            z_ = read(z, place_, count)
            share = sigmoid(z_)
            slope = share * fma(z_, const(z_, 1.0) - share, const(z_, 1.0))
            write(dz, place_, count, read(dz, place_, count) * read(grad, place_, count) * slope)


def add_parts(
    parts: Any,
    dB: Any,
    dC: Any,
    order: int,
    batch: int,
    k: int,
    begin: int,
    first: int,
    end: int,
) -> None:
    """Write dB and dC of segments `first` to `end` - 1 from parts, which start at `begin`."""
    rows = np.empty(SEGMENT, np.int64)
    tile = np.empty(SEGMENT, dB.dtype)
    for segment in range(first, end):
        steps = fill_rows(rows, order, dB.shape[2], segment * SEGMENT)
        for which in range(2):
            target = dC if which else dB
            for n in range(dB.shape[3]):
                for t in range(0, SEGMENT, LANES):
                    token = (segment - begin) * SEGMENT + t
                    total = read(parts, (batch, 0, which, n, token), LANES)
                    for block in range(1, parts.shape[1]):
                        total = total + read(parts, (batch, block, which, n, token), LANES)
                    store(tile, t, total)
                for t in range(steps):
                    target[batch, k, rows[t], n] = tile[t]
