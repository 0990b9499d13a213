"""Scan orders as row indices over the flattened grid.

An order is one integer, as operators of torch.library take no lists of lists: 1 reads tokens first
to last, and S > 1 is SegMamba's inter-slice order with S slices, in which position m * S + s reads
token s * (L / S) + m. A minus sign reads the same from its end: -1 is last to first.

On a grid of two axes these are all permutations of the axes, on one of three the half that turns
the axes round: where the axes from the first to the i-th are read fastest, S is their number of
positions. The others swap the last two axes before: they are the order S of the tokens of (..., C,
R), where the axes are R x C long, and have those lengths in the higher bits of the integer.

Source: SegMamba, arXiv 2401.13560, section 2.2; github.com/ge-xing/SegMamba@cff3597,
mamba/mamba_ssm/modules/mamba_simple.py.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

FORWARD = 1
REVERSE = -1
SLICE_BITS, AXIS_BITS = 31, 16
"""Bits of an order, from the lowest: those of S, of C - 1; the others are those of R - 1."""
_SWAPPED = ((0, 2, 1), (2, 1, 0), (1, 0, 2))


class OrderParts(NamedTuple):
    """S, the lengths R x C of swapped axes or 1 x 1, and whether the order starts at the end."""

    slices: int
    rows: int
    columns: int
    mirrored: bool


def axis_order(grid: tuple[int, ...], axes: tuple[int, ...], *, mirrored: bool = False) -> int:
    """Return the order that reads the grid with `axes` from the slowest to the fastest.

    It is a permutation of two axes or of three. `mirrored` reads from the last token to the first.

    Raises:
        ValueError: an axis, or the number of tokens, is more than an order can say.
    """
    swaps = axes in _SWAPPED
    rows, columns = grid[1:] if swaps else (1, 1)
    stored = _SWAPPED[0] if swaps else tuple(range(len(grid)))
    fastest = stored.index(axes[-1])
    slices = math.prod([grid[axis] for axis in stored[: fastest + 1]])
    if fastest == len(grid) - 1:
        slices = 1
    if max(rows, columns) > 1 << AXIS_BITS or math.prod(grid) >= 1 << SLICE_BITS:
        raise ValueError(f"a scan in order {axes} has no room for a grid of {list(grid)}")
    order = slices + ((columns - 1) + (rows - 1) * (1 << AXIS_BITS)) * (1 << SLICE_BITS)
    return -order if mirrored else order


def order_parts(order: int) -> OrderParts:
    """Take an order apart."""
    sizes, slices = divmod(abs(order), 1 << SLICE_BITS)
    rows, columns = divmod(sizes, 1 << AXIS_BITS)
    return OrderParts(slices, rows + 1, columns + 1, order < 0)


def check_order(order: int, length: int) -> None:
    """Refuse an order that does not fit; a symbol that torch.export traces has no value to refuse.

    Raises:
        ValueError: it has no slices, or its slices or its swapped axes do not divide the length.
    """
    if isinstance(order, torch.SymInt):
        return
    slices, rows, columns, _ = order_parts(order)
    if slices == 0 or length % slices or length % (rows * columns):
        raise ValueError(f"scan order {order} does not fit {length} tokens")


def order_index(order: int, length: int, device: torch.device) -> Tensor:
    """Return the (L,) tokens in the order in which the scan reads them.

    Raises:
        ValueError: the order does not fit the length.
    """
    check_order(order, length)
    slices, rows, columns, mirrored = order_parts(order)
    tokens = torch.arange(length, device=device).view(-1, rows, columns).mT
    tokens = tokens.reshape(slices, length // slices).t().reshape(length)
    return tokens.flip(0) if mirrored else tokens
