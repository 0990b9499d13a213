# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""Triton kernels of the selective scan's backward pass.

The adjoint g of the state runs from the last position to the first: g = decay * (g + C dy) leaves
a position. As in the forward pass, `adjoint_ends` runs each chunk from zero, `combine` of
`triton_forward` carries the adjoints, and `scan_backward` runs each chunk again from its true one.
States are computed again from the boundaries, SEGMENT positions at a time: a first sweep leaves
one state per STEPS positions in `scratch`, then blocks of STEPS are run again in registers, last
to first.

Legend: h (N, D) state, g (N, D) its adjoint, dt time step, x = dt u, k direction, j position in
scan order, row token that the position reads, d channel, n state.
"""

import triton
import triton.language as tl

from blocks.scan.backends.triton_rows import (
    LN_2,
    LOG2_E,
    below,
    load_order,
    load_row,
    next_row,
    previous_row,
    row_at,
    sigmoid,
    softplus,
    token_of,
)


@triton.jit
def adjoint_ends(
    grad,
    delta,
    A,
    C,
    bias,
    z,
    orders,
    ends,
    sums,
    length,
    channels,
    states,
    directions,
    chunks,
    chunk,
    grad_b,
    grad_l,
    grad_d,
    delta_b,
    delta_k,
    delta_l,
    delta_d,
    C_b,
    C_k,
    C_l,
    C_n,
    z_b,
    z_l,
    z_d,
    HAS_Z: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STEPS: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Run the adjoint of every chunk but the first from zero: what leaves it, and its sum of dt."""
    c = tl.program_id(1) + 1
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
    grad += b * grad_b
    delta += b * delta_b + k * delta_k
    C += b * C_b + k * C_k
    z += b * z_b
    g = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    last = min((c + 1) * chunk, length) - 1
    blocks = tl.cdiv(last + 1 - c * chunk, STEPS)
    row, inside = row_at(c * chunk + blocks * STEPS - 1, order)
    for turn in range(0, blocks):
        # Positions past the end are masked, and leave an adjoint of zero as it is.
        j = c * chunk + (blocks - turn) * STEPS - 1
        raws, above, reads = (), (), ()
        for i in tl.static_range(STEPS):
            live = j - i <= last
            mask_d = below(d, channels, live)
            at = token_of(row, order, SWAPS)
            raws += (load_row(delta, at, delta_l, d * delta_d, mask_d) + raise_by,)
            dy = load_row(grad, at, grad_l, d * grad_d, mask_d)
            if HAS_Z:
                gate = load_row(z, at, z_l, d * z_d, mask_d)
                dy = dy * gate * sigmoid(gate)
            above += (dy,)
            reads += (load_row(C, at, C_l, n * C_n, below(n, states, live)),)
            row, inside = previous_row(row, inside, order)
        for i in tl.static_range(STEPS):
            dt = softplus(raws[i])
            g = (g + reads[i][:, None] * above[i][None, :]) * tl.exp2(rate * dt[None, :])
            total += dt
    slot = (bk * (chunks - 1) + c - 1) * channels
    tl.store(ends + slot * states + cells, g, mask=both)
    tl.store(sums + slot + d, total, mask=in_d)


@triton.jit(do_not_specialize=["k", "directions"])
def scan_backward(
    grad,
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
    scratch,
    du,
    ddelta,
    total,
    dz,
    small,
    dB,
    dC,
    k,
    length,
    channels,
    states,
    directions,
    chunks,
    chunk,
    segments,
    grad_b,
    grad_l,
    grad_d,
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
    HAS_Z: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STEPS: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Write the gradients of direction k, chunk by chunk.

    dB and dC are partial over blocks of channels; `small` is over chunks: rows of dA, then dD, then
    dbias. `total` gathers y over the directions, and from it the last one writes dz. A program
    takes several chunks one after the other, to use its scratch again.
    """
    d_block = tl.program_id(0)
    b = tl.program_id(2).to(tl.int64)
    batch = tl.num_programs(2)
    bk = b * directions + k
    d = d_block * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    in_d, in_n = d < channels, n < states
    both = in_n[:, None] & in_d[None, :]
    cells = d[None, :] * states + n[:, None]
    wide_k = k.to(tl.int64)
    base = wide_k * channels
    rate = tl.load(A + base * states + cells, mask=both, other=0.0).to(tl.float32) * LOG2_E
    raise_by = tl.load(bias + base + d, mask=in_d, other=0.0).to(tl.float32)
    direct = tl.load(D + base + d, mask=in_d, other=0.0).to(tl.float32)
    order = load_order(orders, k)
    grad += b * grad_b
    u += b * u_b + wide_k * u_k
    delta += b * delta_b + wide_k * delta_k
    B += b * B_b + wide_k * B_k
    C += b * C_b + wide_k * C_k
    z += b * z_b
    total += b * length * channels
    dz += b * length * channels
    du += bk * length * channels
    ddelta += bk * length * channels
    dB += (d_block * batch + b) * length * states
    dC += (d_block * batch + b) * length * states
    program = (b * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + d_block
    tile = tl.arange(0, BLOCK_D)[None, :] * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    scratch += program * (SEGMENT // STEPS) * BLOCK_N * BLOCK_D
    for c in range(tl.program_id(1), chunks, tl.num_programs(1)):
        slot = (bk * (chunks - 1) + c) * channels * states
        carried = in_n[:, None] & below(d, channels, c < chunks - 1)[None, :]
        g = tl.load(ends + slot + cells, mask=carried, other=0.0)
        sum_A = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        sum_D = tl.zeros([BLOCK_D], tl.float32)
        sum_bias = tl.zeros([BLOCK_D], tl.float32)
        low = c * (chunk // SEGMENT)
        high = min(low + chunk // SEGMENT, tl.cdiv(length, SEGMENT))
        for index in range(0, high - low):
            segment = high - 1 - index
            slot = (bk * segments + segment) * channels * states
            h = tl.load(boundaries + slot + cells, mask=both, other=0.0)
            blocks = tl.cdiv(min(SEGMENT, length - segment * SEGMENT), STEPS)
            row, inside = row_at(segment * SEGMENT, order)
            for block in range(0, blocks):
                tl.store(scratch + block * BLOCK_N * BLOCK_D + tile, h)
                start = segment * SEGMENT + block * STEPS
                for i in tl.static_range(STEPS):
                    live = start + i < length
                    mask_d, mask_n = below(d, channels, live), below(n, states, live)
                    at = token_of(row, order, SWAPS)
                    dt = softplus(load_row(delta, at, delta_l, d * delta_d, mask_d) + raise_by)
                    dt = tl.where(mask_d, dt, 0.0)  # the state past the end is the last one
                    x = dt * load_row(u, at, u_l, d * u_d, mask_d)
                    weights = load_row(B, at, B_l, n * B_n, mask_n)
                    h = tl.exp2(rate * dt[None, :]) * h + weights[:, None] * x[None, :]
                    row, inside = next_row(row, inside, order)
            tl.debug_barrier()
            after = h
            for turn in range(0, blocks):
                block = blocks - 1 - turn
                start = segment * SEGMENT + block * STEPS
                rows = ()  # from the last one to the first
                for _ in tl.static_range(STEPS):
                    row, inside = previous_row(row, inside, order)
                    rows += (token_of(row, order, SWAPS),)
                h = tl.load(scratch + block * BLOCK_N * BLOCK_D + tile)
                # All loads first: a load does not move over a branch.
                raws, values, weights = (), (), ()
                for i in tl.static_range(STEPS):
                    at = rows[STEPS - 1 - i]
                    live = start + i < length
                    mask_d, mask_n = below(d, channels, live), below(n, states, live)
                    raws += (load_row(delta, at, delta_l, d * delta_d, mask_d) + raise_by,)
                    values += (load_row(u, at, u_l, d * u_d, mask_d),)
                    weights += (load_row(B, at, B_l, n * B_n, mask_n),)
                known = (h,)
                for i in tl.static_range(STEPS - 1):
                    dt = tl.where(below(d, channels, start + i < length), softplus(raws[i]), 0.0)
                    x = dt * values[i]
                    h = tl.exp2(rate * dt[None, :]) * h + weights[i][:, None] * x[None, :]
                    known += (h,)
                known += (after,)
                after = known[0]
                for i in tl.static_range(STEPS - 1, -1, -1):
                    # Without a branch per position, ptxas puts off sums and runs out of registers.
                    if start + i < length:
                        at = rows[STEPS - 1 - i]
                        place = at * channels + d
                        raw, value, weight = raws[i], values[i], weights[i]
                        dt = softplus(raw)
                        x = dt * value
                        reads = load_row(C, at, C_l, n * C_n, in_n)
                        dy = load_row(grad, at, grad_l, d * grad_d, in_d)
                        decay = tl.exp2(rate * dt[None, :])
                        h = known[i + 1]
                        if HAS_Z:
                            # silu' = s + silu (1 - s), s the sigmoid; y is computed again.
                            y = tl.sum(h * reads[:, None], 0) + direct * value
                            y += load_row(total, at, channels, d, below(d, channels, k > 0))
                            gate = load_row(z, at, z_l, d * z_d, in_d)
                            s = sigmoid(gate)
                            slope = dy * y * s * (1.0 + gate * (1.0 - s))
                            is_last = k == directions - 1
                            tl.store(total + place, y, mask=below(d, channels, k < directions - 1))
                            tl.store(dz + place, slope, mask=below(d, channels, is_last))
                            dy = dy * gate * s
                        tl.store(dC + at * states + n, tl.sum(h * dy[None, :], 1), mask=in_n)
                        g += reads[:, None] * dy[None, :]
                        tl.store(dB + at * states + n, tl.sum(g * x[None, :], 1), mask=in_n)
                        dx = tl.sum(g * weight[:, None], 0)
                        g = g * decay
                        d_log = g * known[i]
                        sum_A += d_log * dt[None, :]
                        sum_D += dy * value
                        d_raw = (tl.sum(d_log * rate, 0) * LN_2 + value * dx) * sigmoid(raw)
                        sum_bias += d_raw
                        tl.store(du + place, direct * dy + dt * dx, mask=in_d)
                        tl.store(ddelta + place, d_raw, mask=in_d)
            tl.debug_barrier()
        sums = small + ((wide_k * batch + b) * chunks + c) * channels * (states + 2)
        tl.store(sums + cells, sum_A, mask=both)
        tl.store(sums + channels * states + d, sum_D, mask=in_d)
        tl.store(sums + channels * (states + 1) + d, sum_bias, mask=in_d)
