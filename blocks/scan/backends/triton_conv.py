# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""Triton kernels of the causal convolution per scan order, with SiLU.

Each program holds a tile of (positions or tokens, channels). A tap's rows come from the order
table, so that no permuted copy exists. The pre-activation is computed again in the backward pass.

Legend: k direction, j position in scan order, row token that it reads, d channel, w tap.
"""

import triton
import triton.language as tl

from blocks.scan.backends.triton_rows import load_order, position_of, row_at, sigmoid


@triton.jit
def _load_tile(base, rows, stride, columns, mask):
    """Load rows of a tile as float32."""
    places = rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(base + places, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _activation_input(
    x, taps, shift, j, x_l, columns, slices, step, first, length, in_d, WIDTH: tl.constexpr
):
    """Return bias + sum over taps at positions j."""
    found = tl.zeros([j.shape[0], columns.shape[0]], tl.float32) + shift[None, :]
    for w in tl.static_range(WIDTH):
        position = j - (WIDTH - 1) + w
        inside = (position >= 0) & (position < length)
        rows, _ = row_at(tl.maximum(position, 0), slices, step, first)
        tap = tl.load(taps + w, mask=in_d, other=0.0).to(tl.float32)
        mask = inside[:, None] & in_d[None, :]
        found += tap[None, :] * _load_tile(x, rows, x_l, columns, mask)
    return found


@triton.jit
def _activation_gradient(pre, grad):
    """Return the gradient of silu's input."""
    s = sigmoid(pre)
    return grad * s * (1.0 + pre * (1.0 - s))


@triton.jit
def conv(
    x,
    weight,
    bias,
    orders,
    out,
    length,
    channels,
    directions,
    x_b,
    x_l,
    x_d,
    WIDTH: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write silu(bias + sum_w weight[w] x[row(j - (W - 1) + w)]) to row(j) of each direction."""
    d_blocks = tl.cdiv(channels, BLOCK_D)
    j = (tl.program_id(0) // d_blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    bk = tl.program_id(1).to(tl.int64)
    b, k = bk // directions, bk % directions
    d = (tl.program_id(0) % d_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < channels
    shift = tl.load(bias + k * channels + d, mask=in_d, other=0.0).to(tl.float32)
    slices, step, first = load_order(orders, k)
    taps = weight + (k * channels + d) * WIDTH
    # fmt: off
    pre = _activation_input(x + b * x_b, taps, shift, j, x_l, d * x_d, slices, step, first, length,
                            in_d, WIDTH)
    # fmt: on
    rows, _ = row_at(j, slices, step, first)
    places = (bk * length + rows)[:, None] * channels + d[None, :]
    tl.store(out + places, pre * sigmoid(pre), mask=(j < length)[:, None] & in_d[None, :])


@triton.jit
def conv_backward_input(
    grad,
    x,
    weight,
    bias,
    orders,
    dx,
    length,
    channels,
    directions,
    grad_b,
    grad_k,
    grad_l,
    grad_d,
    x_b,
    x_l,
    x_d,
    WIDTH: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Gather dx of a tile of tokens from every position of every direction that reads them."""
    d_blocks = tl.cdiv(channels, BLOCK_D)
    row = (tl.program_id(0) // d_blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    b = tl.program_id(1).to(tl.int64)
    d = (tl.program_id(0) % d_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < channels
    base = grad + b * grad_b
    found = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
    for k in range(0, directions):
        shift = tl.load(bias + k * channels + d, mask=in_d, other=0.0).to(tl.float32)
        slices, step, first = load_order(orders, k)
        taps = weight + (k * channels + d) * WIDTH
        j = position_of(row, slices, step, length)
        for w in range(0, WIDTH):
            reader = j + (WIDTH - 1) - w
            mask = ((row < length) & (reader < length))[:, None] & in_d[None, :]
            # fmt: off
            pre = _activation_input(x + b * x_b, taps, shift, reader, x_l, d * x_d, slices, step,
                                    first, length, in_d, WIDTH)
            # fmt: on
            rows, _ = row_at(reader, slices, step, first)
            above = _load_tile(base, rows, grad_l, d * grad_d, mask)
            tap = tl.load(taps + w, mask=in_d, other=0.0).to(tl.float32)
            found += tap[None, :] * _activation_gradient(pre, above)
        base += grad_k
    places = (b * length + row)[:, None] * channels + d[None, :]
    tl.store(dx + places, found, mask=(row < length)[:, None] & in_d[None, :])


@triton.jit
def conv_backward_weight(
    grad,
    x,
    weight,
    bias,
    orders,
    dweight,
    dbias,
    length,
    channels,
    directions,
    chunk,
    grad_b,
    grad_k,
    grad_l,
    grad_d,
    x_b,
    x_l,
    x_d,
    WIDTH: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum dweight and dbias over one chunk of positions; one partial per chunk."""
    d_blocks = tl.cdiv(channels, BLOCK_D)
    c = tl.program_id(0) // d_blocks
    bk = tl.program_id(1).to(tl.int64)
    b, k = bk // directions, bk % directions
    d = (tl.program_id(0) % d_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < channels
    shift = tl.load(bias + k * channels + d, mask=in_d, other=0.0).to(tl.float32)
    slices, step, first = load_order(orders, k)
    taps = weight + (k * channels + d) * WIDTH
    base = grad + b * grad_b + k * grad_k
    x += b * x_b
    tap_index = tl.arange(0, BLOCK_W)
    sums = tl.zeros([BLOCK_W, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(c * chunk, min((c + 1) * chunk, length), BLOCK_L):
        j = start + tl.arange(0, BLOCK_L)
        # fmt: off
        pre = _activation_input(x, taps, shift, j, x_l, d * x_d, slices, step, first, length, in_d,
                                WIDTH)
        # fmt: on
        rows, _ = row_at(j, slices, step, first)
        mask = (j < length)[:, None] & in_d[None, :]
        slope = _activation_gradient(pre, _load_tile(base, rows, grad_l, d * grad_d, mask))
        total += tl.sum(slope, 0)
        for w in tl.static_range(WIDTH):
            position = j - (WIDTH - 1) + w
            inside = (position >= 0) & (position < length)
            rows, _ = row_at(tl.maximum(position, 0), slices, step, first)
            seen = _load_tile(x, rows, x_l, d * x_d, inside[:, None] & in_d[None, :])
            sums += tl.where((tap_index == w)[:, None], tl.sum(slope * seen, 0)[None, :], 0.0)
    slot = (bk * (tl.num_programs(0) // d_blocks) + c) * channels
    tl.store(dbias + slot + d, total, mask=in_d)
    places = (slot + d)[None, :] * WIDTH + tap_index[:, None]
    tl.store(dweight + places, sums, mask=in_d[None, :] & (tap_index < WIDTH)[:, None])
