"""Which token a scan reads at which position, and copies of token rows into kernels' buffers."""

from typing import Any

from numba import njit

from blocks.scan.backends.numba_memory import read, store
from blocks.scan.backends.numba_simd import LANES
from blocks.scan.orders import AXIS_BITS, SLICE_BITS

SEGMENT = 64
"""Tokens between two saved states; kernels hold one segment in their buffers."""


@njit(forceinline=True, error_model="numpy")
def token_at(order: Any, length: Any, position: Any) -> Any:
    """Return the token at a position of an order of `blocks.scan.orders`."""
    slices = abs(order) & (1 << SLICE_BITS) - 1
    row = position % slices * (length // slices) + position // slices
    if abs(order) >> SLICE_BITS:
        row = _swapped(order, row)
    return row if order > 0 else length - 1 - row


@njit(error_model="numpy")
def fill_rows(rows: Any, order: Any, length: Any, start: Any) -> Any:
    """Write the tokens of the segment from position `start` on; return how many there are."""
    steps = min(SEGMENT, length - start)
    slices = abs(order) & (1 << SLICE_BITS) - 1
    stride = length // slices
    row = start % slices * stride + start // slices
    for t in range(steps):
        rows[t] = row
        row += stride
        if row >= length:
            row -= length - 1
    if abs(order) >> SLICE_BITS:
        for t in range(steps):
            rows[t] = _swapped(order, rows[t])
    if order < 0:
        for t in range(steps):
            rows[t] = length - 1 - rows[t]
    return steps


@njit(forceinline=True, error_model="numpy")
def _swapped(order: Any, row: Any) -> Any:
    """Return the token of (..., R, C) for one of (..., C, R)."""
    sizes = abs(order) >> SLICE_BITS
    rows, columns = (sizes >> AXIS_BITS) + 1, (sizes & (1 << AXIS_BITS) - 1) + 1
    inside = row % (rows * columns)
    return row - inside + inside % rows * columns + inside // rows


@njit(forceinline=True, error_model="numpy")
def copy_states(source: Any, batch: Any, k: Any, row: Any, buffer: Any, offset: Any) -> None:
    """Copy the N values of one token of B or C."""
    states = source.shape[3]
    for n in range(0, states, LANES):
        store(buffer, offset + n, read(source, (batch, k, row, n), min(LANES, states - n)))
