# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""Triton kernels of the selective scan's forward pass.

L is cut into chunks that run in parallel: `chunk_ends` scans each from zero, `combine` carries
states from chunk to chunk, `scan` runs each again from its true state. A program keeps a tile of
(states, channels) in registers. As compiled for 16 x 32 and one warp, 4 groups of 8 lanes hold 4
states and 4 channels each per lane, so that the sum over states crosses lanes twice (SHFL).

Legend: h (N, D) state, dt time step, k direction, j position in scan order, row token that the
position reads, d channel, n state.
"""

import triton
import triton.language as tl

from blocks.scan.backends.triton_rows import (
    LOG2_E,
    below,
    load_order,
    load_row,
    next_row,
    row_at,
    sigmoid,
    softplus,
    token_of,
)


@triton.jit
def chunk_ends(
    u,
    delta,
    A,
    B,
    bias,
    orders,
    ends,
    sums,
    length,
    channels,
    states,
    directions,
    chunks,
    chunk,
    u_b,
    u_k,
    u_l,
    u_d,
    delta_b,
    delta_k,
    delta_l,
    delta_d,
    B_b,
    B_k,
    B_l,
    B_n,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STEPS: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Scan every chunk but the last from a zero state: its end state, and the sum of its dt."""
    c = tl.program_id(1)
    bk = tl.program_id(2).to(tl.int64)
    b, k = bk // directions, bk % directions
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    in_d, in_n = d < channels, n < states
    both = in_n[:, None] & in_d[None, :]
    cells = d[None, :] * states + n[:, None]
    rate = tl.load(A + k * channels * states + cells, mask=both, other=0.0).to(tl.float32) * LOG2_E
    raise_by = tl.load(bias + k * channels + d, mask=in_d, other=0.0).to(tl.float32)
    order = load_order(orders, k)
    u += b * u_b + k * u_k
    delta += b * delta_b + k * delta_k
    B += b * B_b + k * B_k
    h = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    row, inside = row_at(c * chunk, order)
    for _ in range(0, chunk, STEPS):
        # All loads first: a load does not move over an exchange between lanes.
        raws, values, weights = (), (), ()
        for _ in tl.static_range(STEPS):
            at = token_of(row, order, SWAPS)
            raws += (load_row(delta, at, delta_l, d * delta_d, in_d) + raise_by,)
            values += (load_row(u, at, u_l, d * u_d, in_d),)
            weights += (load_row(B, at, B_l, n * B_n, in_n),)
            row, inside = next_row(row, inside, order)
        for i in tl.static_range(STEPS):
            dt = softplus(raws[i])
            h = tl.exp2(rate * dt[None, :]) * h + weights[i][:, None] * (dt * values[i])[None, :]
            total += dt
    slot = (bk * (chunks - 1) + c) * channels
    tl.store(ends + slot * states + cells, h, mask=both)
    tl.store(sums + slot + d, total, mask=in_d)


@triton.jit
def combine(
    ends,
    sums,
    A,
    channels,
    states,
    directions,
    count,
    REVERSE: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Turn what each chunk adds into what leaves it, in place; a chunk decays by exp(A sum dt)."""
    bk = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = cell // states
    in_cells = cell < channels * states
    cells = (bk % directions) * channels * states + cell
    rate = tl.load(A + cells, mask=in_cells, other=0.0).to(tl.float32) * LOG2_E
    ends += bk * count * channels * states
    sums += bk * count * channels
    h = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, ROWS):
        # All loads before all stores: a load does not move over a store.
        found, added, decays = (), (), ()
        for i in tl.static_range(ROWS):
            c = start + i
            mask = below(cell, channels * states, c < count)
            if REVERSE:
                c = count - 1 - c
            found += (ends + c.to(tl.int64) * channels * states + cell,)
            added += (tl.load(found[i], mask=mask, other=0.0),)
            time = tl.load(sums + c.to(tl.int64) * channels + d, mask=mask, other=0.0)
            decays += (tl.exp2(rate * time),)
        for i in tl.static_range(ROWS):
            h = decays[i] * h + added[i]
            tl.store(found[i], h, mask=below(cell, channels * states, start + i < count))


@triton.jit(do_not_specialize=["k", "directions"])
def scan(
    u,
    delta,
    A,
    B,
    C,
    D,
    bias,
    z,
    orders,
    ends,
    boundaries,
    total,
    out,
    k,
    length,
    channels,
    states,
    directions,
    chunks,
    chunk,
    segments,
    u_b,
    u_k,
    u_l,
    u_d,
    delta_b,
    delta_k,
    delta_l,
    delta_d,
    B_b,
    B_k,
    B_l,
    B_n,
    C_b,
    C_k,
    C_l,
    C_n,
    z_b,
    z_l,
    z_d,
    LAST: tl.constexpr,
    HAS_Z: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STEPS: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Run direction k from the true state of each chunk and add y to `total`.

    The first direction sets `total`; the last adds to it, gates, and writes `out` instead.
    """
    c = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    bk = b * directions + k
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    in_d, in_n = d < channels, n < states
    both = in_n[:, None] & in_d[None, :]
    cells = d[None, :] * states + n[:, None]
    base = k.to(tl.int64) * channels
    rate = tl.load(A + base * states + cells, mask=both, other=0.0).to(tl.float32) * LOG2_E
    raise_by = tl.load(bias + base + d, mask=in_d, other=0.0).to(tl.float32)
    direct = tl.load(D + base + d, mask=in_d, other=0.0).to(tl.float32)
    order = load_order(orders, k)
    u += b * u_b + k.to(tl.int64) * u_k
    delta += b * delta_b + k.to(tl.int64) * delta_k
    B += b * B_b + k.to(tl.int64) * B_k
    C += b * C_b + k.to(tl.int64) * C_k
    total += b * length * channels
    out += b * length * channels
    z += b * z_b
    slot = (bk * (chunks - 1) + c - 1) * channels * states
    carried = in_n[:, None] & below(d, channels, c > 0)[None, :]
    h = tl.load(ends + slot + cells, mask=carried, other=0.0)
    row, inside = row_at(c * chunk, order)
    for start in range(c * chunk, min((c + 1) * chunk, length), STEPS):
        if start % SEGMENT == 0:
            slot = (bk * segments + start // SEGMENT) * channels * states
            tl.store(boundaries + slot + cells, h, mask=both)
        # All loads first: a load does not move over a store or an exchange between lanes.
        places, raws, values, weights, reads, gates, sums = (), (), (), (), (), (), ()
        for i in tl.static_range(STEPS):
            live = start + i < length
            mask_d, mask_n = below(d, channels, live), below(n, states, live)
            at = token_of(row, order, SWAPS)
            places += (at * channels + d,)
            raws += (load_row(delta, at, delta_l, d * delta_d, mask_d) + raise_by,)
            values += (load_row(u, at, u_l, d * u_d, mask_d),)
            weights += (load_row(B, at, B_l, n * B_n, mask_n),)
            reads += (load_row(C, at, C_l, n * C_n, mask_n),)
            sums += (load_row(total, at, channels, d, below(d, channels, live & (k > 0))),)
            if HAS_Z and LAST:
                gates += (load_row(z, at, z_l, d * z_d, mask_d),)
            row, inside = next_row(row, inside, order)
        for i in tl.static_range(STEPS):
            live = start + i < length
            dt = softplus(raws[i])
            x = dt * values[i]
            h = tl.exp2(rate * dt[None, :]) * h + weights[i][:, None] * x[None, :]
            y = sums[i] + tl.sum(h * reads[i][:, None], 0) + direct * values[i]
            if HAS_Z and LAST:
                y = y * gates[i] * sigmoid(gates[i])
            mask = below(d, channels, live)
            if LAST:
                tl.store(out + places[i], y, mask=mask)
            else:
                tl.store(total + places[i], y, mask=mask)
