"""Kernels of the selective scan's backward pass, with `numba_scan`'s legend and layout.

A task goes over some segments of one direction, last to first. Each state's values inside a
segment are computed again from its boundary, into buffers that stay in the processor's cache.
dB and dC are sums over channels: every task writes its part, `add_parts` adds them in fixed order.
"""

from typing import Any

import numpy as np

from blocks.scan.backends.numba_math import exp2, sigmoid, softplus
from blocks.scan.backends.numba_memory import GROUP, load, load_one, read, store, write, write_sums
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

    Written: du, ddelta; dz, which is the ungated output until the last direction makes it the
    gradient. Added to: dA (B, K, D, N), dD and dbias (B, K, D).
    Carried: adjoints (B, blocks, N, LANES). Parts of dB and dC: parts (B, blocks, 2, N, tokens).
    """
    length = u.shape[2]
    states = A.shape[2]
    last = u.shape[1] - 1
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
    slopes = np.empty(SEGMENT * LANES, u.dtype)
    dgate = np.empty(SEGMENT * LANES, u.dtype)
    dBC = np.zeros(GROUP * LANES, u.dtype)
    load_rates(A, k, first, count, rates)
    bias_ = read(bias, (k, first), count)
    skip = read(D, (k, first), count)
    zero, one = const(skip, 0.0), const(skip, 1.0)
    for segment in range(end - 1, begin - 1, -1):
        for i in range(count):
            for n in range(states):
                h[n * LANES + i] = boundaries[batch, k, segment, first + i, n]
        steps = fill_rows(rows, order, length, segment * SEGMENT)
        offset = (segment - begin) * SEGMENT
        for t in range(steps):
            row = rows[t]
            u_ = read(u, (batch, k, row, first), count)
            raw = read(delta, (batch, k, row, first), count) + bias_
            dt_, slope = softplus(raw), sigmoid(raw)
            dy_ = read(grad, (batch, row, first), count)
            if gated:
                z_ = read(z, (batch, row, first), count)
                share = sigmoid(z_)
                store(dgate, t * LANES, dy_ * share * fma(z_, one - share, one))
                dy_ = dy_ * z_ * share
            store(dt, t * LANES, dt_)
            store(slopes, t * LANES, slope)
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
            for group in range(0, steps, GROUP):
                for t in range(group, min(group + GROUP, steps)):
                    decay = exp2(load(dt, t * LANES) * rate)
                    store(decays, t * LANES, decay)
                    store(before, t * LANES, h_)
                    h_ = fma(decay, h_, load(dtu, t * LANES) * load_one(Bs, t * width + n))
                    y_ = fma(h_, load_one(Cs, t * width + n), load(y, t * LANES))
                    store(y, t * LANES, y_)
                    store(dBC, (t - group) * LANES, load(dy, t * LANES) * h_)
                write_sums(parts, (batch, block, 1, n, offset + group), dBC)
            place = (batch, block, n, 0)
            dh = read(adjoints, place, LANES)
            total = zero
            for group in range((steps - 1) // GROUP * GROUP, -1, -GROUP):
                for t in range(min(group + GROUP, steps) - 1, group - 1, -1):
                    dh = fma(load(dy, t * LANES), load_one(Cs, t * width + n), dh)
                    dinput_ = fma(dh, load_one(Bs, t * width + n), load(dinput, t * LANES))
                    store(dinput, t * LANES, dinput_)
                    store(dBC, (t - group) * LANES, dh * load(dtu, t * LANES))
                    dh = dh * load(decays, t * LANES)
                    dlog = dh * load(before, t * LANES)
                    store(ddt, t * LANES, fma(dlog, rate, load(ddt, t * LANES)))
                    total = fma(dlog, load(dt, t * LANES), total)
                write_sums(parts, (batch, block, 0, n, offset + group), dBC)
            write(adjoints, place, LANES, dh)
            store(dA_, n * LANES, load(dA_, n * LANES) + total)
        dD_ = zero
        dbias_ = zero
        for t in range(steps):
            place = (batch, k, rows[t], first)
            u_ = read(u, place, count)
            dy_, dinput_ = load(dy, t * LANES), load(dinput, t * LANES)
            ddt_ = fma(dinput_, u_, load(ddt, t * LANES) * const(u_, LN2))
            ddelta_ = ddt_ * load(slopes, t * LANES)
            write(du, place, count, fma(dinput_, load(dt, t * LANES), dy_ * skip))
            write(ddelta, place, count, ddelta_)
            dD_ = fma(dy_, u_, dD_)
            dbias_ = dbias_ + ddelta_
            if gated:
                place_ = (batch, rows[t], first)
                y_ = load(y, t * LANES)
                if k > 0:
                    y_ = y_ + read(dz, place_, count)
                if k == last:
                    y_ = y_ * load(dgate, t * LANES)
                write(dz, place_, count, y_)
        place_ = (batch, k, first)
        write(dD, place_, count, read(dD, place_, count) + dD_)
        write(dbias, place_, count, read(dbias, place_, count) + dbias_)
    for i in range(count):
        for n in range(states):
            dA[batch, k, first + i, n] += dA_[n * LANES + i]


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
