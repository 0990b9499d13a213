# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""What the Triton kernels share: scan orders as row arithmetic, and activations.

An order is six integers of an order table, so that no kernel is compiled again for another one:
slices S, step, turn, first, and the sizes R and C of swapped axes. Position j of the scan reads row
first + (j % S) * step + j // S; an order that starts at the end has a negative step, and takes
j // S off instead. The next position adds step, and after the last slice takes turn off, which is
L - 1 with the step's sign.

Rows are tokens, but where an order swaps axes: for those kernels are compiled with SWAPS, and find
the token by `token_of`, which divides.

A row is an integer of the table's dtype, and so is each place in a row: 32 bits where they reach
the end of every tensor, since 64 cost a kernel several instructions per load.
"""

import functools
import os
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from blocks.scan.capture import refuse_in_capture
from blocks.scan.orders import order_parts

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether kernels run on CPU tensors: Triton reads the same variable when a kernel is defined."""
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)
MOST_REACH = 2**31 - 1
"""Elements between the ends of a matrix whose places int32 holds."""


def order_table(
    orders: Sequence[int], length: int, device: torch.device, *tensors: Tensor | None
) -> Tensor:
    """Return the (K, 6) table of the orders; kept, to copy it only once.

    It is int64 where a row of the tensors (..., rows, columns) lies further off than int32 says.

    Raises:
        RuntimeError: it is not kept yet, and a CUDA graph is being captured.
    """
    far = any(t is not None and _reach(t) > MOST_REACH for t in tensors)
    return _order_table(tuple(orders), length, device, torch.int64 if far else torch.int32)


def _reach(t: Tensor) -> int:
    """Return how far the last element of a matrix lies behind its first one, or would if dense."""
    strides = zip(t.shape[-2:], t.stride()[-2:], strict=True)
    return max(sum((size - 1) * stride for size, stride in strides), t.shape[-2] * t.shape[-1])


@functools.cache  # without a limit: a captured CUDA graph reads its table for ever
def _order_table(
    orders: tuple[int, ...], length: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    refuse_in_capture(device)
    rows = [_table_row(order, length) for order in orders]
    return torch.tensor(rows, dtype=dtype, device=device)


def _table_row(order: int, length: int) -> tuple[int, ...]:
    slices, rows, columns, mirrored = order_parts(order)
    sign, first = (-1, length - 1) if mirrored else (1, 0)
    return slices, sign * (length // slices), sign * (length - 1), first, rows, columns


def which_swap(orders: Sequence[int]) -> list[bool]:
    """Return of each order whether its rows are not its tokens."""
    return [order_parts(order).rows > 1 for order in orders]


@triton.jit
def load_order(table, k):
    """Return slices, step, turn, first, rows and columns of direction k."""
    order = ()
    for i in tl.static_range(6):
        order += (tl.load(table + 6 * k + i),)
    return order


@triton.jit
def row_at(position, order):
    """Return the row at a position, and the slice that it lies in."""
    slices, step, first = order[0], order[1], order[3]
    inside = position % slices
    along = position // slices
    return first + inside * step + tl.where(step < 0, -along, along), inside


@triton.jit
def next_row(row, inside, order):
    """Go one position on without a division."""
    slices, step, turn = order[0], order[1], order[2]
    wraps = inside + 1 == slices
    return row + tl.where(wraps, step - turn, step), tl.where(wraps, 0, inside + 1)


@triton.jit
def previous_row(row, inside, order):
    """Go one position back without a division."""
    slices, step, turn = order[0], order[1], order[2]
    wraps = inside == 0
    return row - tl.where(wraps, step - turn, step), tl.where(wraps, slices - 1, inside - 1)


@triton.jit
def place_of(row, order):
    """Return the position at which a row is read, and the slice that it lies in."""
    slices, step, turn = order[0], order[1], order[2]
    row, width = tl.where(step < 0, -turn - row, row), tl.abs(step)
    inside = row // width
    return (row % width) * slices + inside, inside


@triton.jit
def token_of(row, order, SWAPS: tl.constexpr):
    """Return the token of a row."""
    if SWAPS:
        row = _swapped(row, order[4], order[5])
    return row


@triton.jit
def row_of(token, order, SWAPS: tl.constexpr):
    """Return the row of a token."""
    if SWAPS:
        token = _swapped(token, order[5], order[4])
    return token


@triton.jit
def _swapped(index, rows, columns):
    """Return the place in (..., R, C) of one in (..., C, R); it may count from the end as well."""
    inside = index % (rows * columns)
    return index - inside + inside % rows * columns + inside // rows


@triton.jit
def below(index, size, condition):
    """Return the mask index < size where the scalar condition holds, else nowhere.

    Not `mask & condition`: the interpreter makes integers of a scalar that meets a vector.
    """
    return index < tl.where(condition, size, 0)


@triton.jit
def load_row(base, row, stride, columns, mask):
    """Load one row in its own dtype, as float32; `columns` are offsets inside the row."""
    return tl.load(base + (row * stride + columns), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def softplus(x):
    """Return log(1 + exp(x)), exact to float32 rounding also where it is near zero.

    With e = exp(-|x|), log1p(e) = 2 artanh(e / (2 + e)), by a polynomial of relative error 4e-9.
    """
    e = tl.exp2(-tl.abs(x) * LOG2_E)
    s = e / (2.0 + e)
    q = s * s
    tail = 0.4002485372355137 + q * (0.2796141883338817 + q * 0.28174657270417897)
    return tl.maximum(x, 0.0) + s * (2.0 + q * (0.6666631593507952 + q * tail))


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + exp(-x)) without overflow."""
    e = tl.exp2(-tl.abs(x) * LOG2_E)
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)
