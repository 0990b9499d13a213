# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""Triton kernels of the causal convolution per scan order, with SiLU.

Each program holds a tile of (positions or tokens, channels). A tap's rows come from the order
table, so that no permuted copy exists. The backward pass computes the pre-activation again, once:
`conv_backward_weight` leaves its gradient in `slope`, from which `conv_backward_input` gathers.

Legend: k direction, j position in scan order, row token that it reads, d channel, w tap.
"""

import triton
import triton.language as tl

from blocks.scan.backends.triton_rows import (
    load_order,
    next_row,
    place_of,
    previous_row,
    row_at,
    row_of,
    sigmoid,
    token_of,
)


@triton.jit
def _load_tile(base, rows, stride, columns, mask):
    """Load rows of a tile as float32."""
    places = rows[:, None] * stride + columns[None, :]
    return tl.load(base + places, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _load_taps(weight, base, in_d, WIDTH: tl.constexpr):
    """Return the taps of a tile's channels, the last one first."""
    taps = ()
    for w in tl.static_range(WIDTH):
        taps += (tl.load(weight + base + WIDTH - 1 - w, mask=in_d, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def _load_seen(
    x, j, row, inside, x_l, columns, order, length, in_d, WIDTH: tl.constexpr, SWAPS: tl.constexpr
):
    """Return what the taps see at positions j, which read `row`: the position's own tile first."""
    seen = ()
    for w in tl.static_range(WIDTH):
        mask = ((j >= w) & (j - w < length))[:, None] & in_d[None, :]
        seen += (_load_tile(x, token_of(row, order, SWAPS), x_l, columns, mask),)
        row, inside = previous_row(row, inside, order)
    return seen


@triton.jit
def _activation_input(taps, seen, shift, WIDTH: tl.constexpr):
    """Return bias + sum over taps."""
    found = shift[None, :] + taps[0][None, :] * seen[0]
    for w in tl.static_range(1, WIDTH):
        found += taps[w][None, :] * seen[w]
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
    SWAPS: tl.constexpr,
):
    """Write silu(bias + sum_w weight[w] x[row(j - (W - 1) + w)]) to row(j) of each direction."""
    d_blocks = tl.cdiv(channels, BLOCK_D)
    j = (tl.program_id(0) // d_blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    bk = tl.program_id(1).to(tl.int64)
    b, k = bk // directions, bk % directions
    d = (tl.program_id(0) % d_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < channels
    shift = tl.load(bias + k * channels + d, mask=in_d, other=0.0).to(tl.float32)
    order = load_order(orders, k)
    taps = _load_taps(weight, (k * channels + d) * WIDTH, in_d, WIDTH)
    row, inside = row_at(j, order)
    x += b * x_b
    seen = _load_seen(x, j, row, inside, x_l, d * x_d, order, length, in_d, WIDTH, SWAPS)
    pre = _activation_input(taps, seen, shift, WIDTH)
    places = token_of(row, order, SWAPS)[:, None] * channels + d[None, :]
    out += bk * length * channels
    tl.store(out + places, pre * sigmoid(pre), mask=(j < length)[:, None] & in_d[None, :])


@triton.jit
def conv_backward_weight(
    grad,
    x,
    weight,
    bias,
    orders,
    slope,
    sums,
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
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Write the slopes of one chunk of positions; leave a row of its dweight, then its dbias.

    Sums over positions are made once, after the loop: within it they are tiles.
    """
    d_blocks = tl.cdiv(channels, BLOCK_D)
    c = tl.program_id(0) // d_blocks
    bk = tl.program_id(1).to(tl.int64)
    b, k = bk // directions, bk % directions
    d = (tl.program_id(0) % d_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < channels
    shift = tl.load(bias + k * channels + d, mask=in_d, other=0.0).to(tl.float32)
    order = load_order(orders, k)
    taps = _load_taps(weight, (k * channels + d) * WIDTH, in_d, WIDTH)
    grad += b * grad_b + k * grad_k
    x += b * x_b
    slope += bk * length * channels
    total = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
    tiles = ()
    for _ in tl.static_range(WIDTH):
        tiles += (total,)
    for start in range(c * chunk, min((c + 1) * chunk, length), BLOCK_L):
        j = start + tl.arange(0, BLOCK_L)
        row, inside = row_at(j, order)
        mask = (j < length)[:, None] & in_d[None, :]
        at = token_of(row, order, SWAPS)
        above = _load_tile(grad, at, grad_l, d * grad_d, mask)
        seen = _load_seen(x, j, row, inside, x_l, d * x_d, order, length, in_d, WIDTH, SWAPS)
        found = _activation_gradient(_activation_input(taps, seen, shift, WIDTH), above)
        tl.store(slope + at[:, None] * channels + d[None, :], found, mask=mask)
        total += found
        added = ()
        for w in tl.static_range(WIDTH):
            added += (tiles[w] + found * seen[w],)
        tiles = added
    batch, chunks = tl.num_programs(1) // directions, tl.num_programs(0) // d_blocks
    sums += ((k * batch + b) * chunks + c) * channels * (WIDTH + 1)
    for w in tl.static_range(WIDTH):
        tl.store(sums + d * WIDTH + WIDTH - 1 - w, tl.sum(tiles[w], 0), mask=in_d)
    tl.store(sums + channels * WIDTH + d, tl.sum(total, 0), mask=in_d)


@triton.jit
def conv_backward_input(
    slope,
    weight,
    orders,
    dx,
    length,
    channels,
    directions,
    WIDTH: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SWAPS: tl.constexpr,
):
    """Gather dx of a tile of tokens from every position of every direction that reads them."""
    d_blocks = tl.cdiv(channels, BLOCK_D)
    token = (tl.program_id(0) // d_blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    b = tl.program_id(1).to(tl.int64)
    d = (tl.program_id(0) % d_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_d = d < channels
    slope += b * directions * length * channels
    found = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
    for k in range(0, directions):
        order = load_order(orders, k)
        taps = _load_taps(weight, (k * channels + d) * WIDTH, in_d, WIDTH)
        row = row_of(token.to(orders.dtype.element_ty), order, SWAPS)
        j, inside = place_of(row, order)
        for w in tl.static_range(WIDTH):
            mask = ((token < length) & (j + w < length))[:, None] & in_d[None, :]
            at = token_of(row, order, SWAPS)
            found += taps[w][None, :] * _load_tile(slope, at, channels, d, mask)
            row, inside = next_row(row, inside, order)
        slope += length.to(tl.int64) * channels
    dx += b * length * channels
    places = token.to(orders.dtype.element_ty)[:, None] * channels + d[None, :]
    tl.store(dx + places, found, mask=(token < length)[:, None] & in_d[None, :])
