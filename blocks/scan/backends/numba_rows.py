"""Which token a scan reads at which position, and copies of token rows into kernels' buffers."""

from typing import Any

from numba import njit

from blocks.scan.backends.numba_memory import read, store
from blocks.scan.backends.numba_simd import LANES

SEGMENT = 64
"""Tokens between two saved states; kernels hold one segment in their buffers."""


@njit(forceinline=True, error_model="numpy")
def token_at(order: Any, length: Any, position: Any) -> Any:
    """Return the token at a position of an order of `blocks.scan.orders`."""
    if order > 0:
        return position % order * (length // order) + position // order
    return length - 1 - position


@njit(error_model="numpy")
def fill_rows(rows: Any, order: Any, length: Any, start: Any) -> Any:
    """Write the tokens of the segment from position `start` on; return how many there are."""
    steps = min(SEGMENT, length - start)
    row = token_at(order, length, start)
    stride = length // order if order > 0 else -1
    for t in range(steps):
        rows[t] = row
        row += stride
        if row >= length:
            row -= length - 1
    return steps


@njit(forceinline=True, error_model="numpy")
def copy_states(source: Any, batch: Any, k: Any, row: Any, buffer: Any, offset: Any) -> None:
    """Copy the N values of one token of B or C."""
    states = source.shape[3]
    for n in range(0, states, LANES):
        store(buffer, offset + n, read(source, (batch, k, row, n), min(LANES, states - n)))
