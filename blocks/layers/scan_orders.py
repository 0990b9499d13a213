"""Scan orders as a spec names them: words, or the grid's axes from the slowest to the fastest."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from blocks.base import Allowed, Grid, SpecError
from blocks.scan.orders import FORWARD, REVERSE, axis_order

_Word = Literal["forward", "reverse", "inter_slice"]
_FromStart = Literal["dhw", "dwh", "hdw", "hwd", "wdh", "whd", "hw", "wh"]
_FromEnd = Literal["-dhw", "-dwh", "-hdw", "-hwd", "-wdh", "-whd", "-hw", "-wh"]
OrderName = Literal[_Word, _FromStart, _FromEnd]
Orders = Annotated[
    tuple[OrderName, ...],
    Field(min_length=1, max_length=16),
    Allowed(
        "a list of forward, reverse, inter_slice, or the axes d, h, w (in 2-D h, w) in any order, "
        "with - before them from the end"
    ),
]
_AXES = {2: "hw", 3: "dhw"}


def check_orders(orders: Sequence[OrderName], ndim: int, *, slices: int | None = None) -> None:
    """Refuse orders of another number of axes, and two that read alike.

    Words may repeat: specs of releases that had nothing else could say `[forward, forward]`.

    Raises:
        SpecError: `field` is "orders".
    """
    released = get_args(_Word)
    words = [*released, *("".join(axes) for axes in itertools.permutations(_AXES[ndim]))]
    seen: dict[str, OrderName] = {}
    for name in orders:
        if name.removeprefix("-") not in words:
            raise SpecError(
                f"{name} must be an order of the {ndim} axes that patch_size has",
                field="orders",
                allowed=f"{', '.join(words)}, and - before axes to read from the end",
                other="patch_size",
            )
        read = _axes_of(name, ndim, slices)
        if read in seen and not {name, seen[read]} <= {*released}:
            alike = "twice" if seen[read] == name else f"as {seen[read]}, which reads alike"
            raise SpecError(f"{name} is there {alike}", field="orders", suggestion="leave one out")
        seen[read] = name


def scan_order(name: OrderName, grid: Grid, *, slices: int | None = None) -> int:
    """Return the order on this grid, as `blocks.scan.orders` has them.

    inter_slice has that many slices, or as many as the grid is deep.

    Raises:
        ValueError: the grid is too large for the order.
    """
    read = _axes_of(name, len(grid), slices)
    if slices is not None and read == "inter_slice":
        return slices
    axes = tuple(_AXES[len(grid)].index(axis) for axis in read.removeprefix("-"))
    if axes == tuple(range(len(grid))):
        return REVERSE if read.startswith("-") else FORWARD
    return axis_order(grid, axes, mirrored=read.startswith("-"))


def is_forward(name: OrderName) -> bool:
    """Say whether it reads tokens as they lie in memory."""
    return name in ("forward", *_AXES.values())


def _axes_of(name: OrderName, ndim: int, slices: int | None) -> str:
    """Return the order in axes; inter_slice with a number of slices is itself."""
    axes = _AXES[ndim]
    words = {"forward": axes, "reverse": f"-{axes}"}
    if slices is None:
        words["inter_slice"] = axes[1:] + axes[0]
    return words.get(name, name)
