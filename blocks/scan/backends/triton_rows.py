# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""What the Triton kernels share: scan orders as row arithmetic, and activations.

An order is three integers of an order table, so that no kernel is compiled again for another one:
slices S, step and first. Position j of the scan reads token first + (j % S) * step + j // S.
"""

import functools
import os
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from blocks.scan.capture import refuse_in_capture
from blocks.scan.orders import REVERSE

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether kernels run on CPU tensors: Triton reads the same variable when a kernel is defined."""
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)
_NEVER = 2**31 - 1


def order_table(orders: Sequence[int], length: int, device: torch.device) -> Tensor:
    """Return the (K, 3) int32 table of slices, step and first; kept, to copy it only once.

    Raises:
        RuntimeError: it is not kept yet, and a CUDA graph is being captured.
    """
    return _order_table(tuple(orders), length, device)


@functools.cache  # without a limit: a captured CUDA graph reads its table for ever
def _order_table(orders: tuple[int, ...], length: int, device: torch.device) -> Tensor:
    refuse_in_capture(device)
    rows = [
        (_NEVER, -1, length - 1) if order == REVERSE else (order, length // order, 0)
        for order in orders
    ]
    return torch.tensor(rows, dtype=torch.int32, device=device)


@triton.jit
def load_order(table, k):
    """Return slices, step and first of direction k."""
    return tl.load(table + 3 * k), tl.load(table + 3 * k + 1), tl.load(table + 3 * k + 2)


@triton.jit
def row_at(position, slices, step, first):
    """Return the token at a position, and the slice that it lies in."""
    inside = position % slices
    return first + inside * step + position // slices, inside


@triton.jit
def next_row(row, inside, slices, step, length):
    """Go one position on without a division."""
    wraps = inside + 1 == slices
    return row + tl.where(wraps, step - length + 1, step), tl.where(wraps, 0, inside + 1)


@triton.jit
def previous_row(row, inside, slices, step, length):
    """Go one position back without a division."""
    wraps = inside == 0
    return row - tl.where(wraps, step - length + 1, step), tl.where(wraps, slices - 1, inside - 1)


@triton.jit
def place_of(row, slices, step, length):
    """Return the position at which a token is read, and the slice that it lies in."""
    width = tl.maximum(step, 1)
    backward, inside = length - 1 - row, row // width
    position = tl.where(step < 0, backward, (row % width) * slices + inside)
    return position, tl.where(step < 0, backward, inside)


@triton.jit
def below(index, size, condition):
    """Return the mask index < size where the scalar condition holds, else nowhere.

    Not `mask & condition`: the interpreter makes integers of a scalar that meets a vector.
    """
    return index < tl.where(condition, size, 0)


@triton.jit
def load_row(base, row, stride, columns, mask):
    """Load one row in its own dtype, as float32; `columns` are offsets inside the row."""
    offset = row.to(tl.int64) * stride
    return tl.load(base + offset + columns, mask=mask, other=0.0).to(tl.float32)


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
