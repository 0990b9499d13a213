"""How far all trainings of an engine are, for whoever looks on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Move:
    """A training that has done `step` of `steps`; None before that is known.

    `dice` is that of the last rung of this session.
    """

    name: str
    step: int | None
    steps: int
    loss: float | None = None
    dice: float | None = None


OnMoves = Callable[[Sequence[Move]], None]
"""Told of all trainings that run, in the order in which they began, whenever one of them moves."""
