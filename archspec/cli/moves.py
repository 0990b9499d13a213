"""Below a bar, a line for each training that runs."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archspec.text import duration

if TYPE_CHECKING:
    from search.trials.moves import Move

_WIDE = 100
"""Columns of a terminal from which on a training has a bar of its own."""
_BAR = 20


class MovingProgress(Progress):
    """A bar of all trainings with a text at its end, and below it those that run now.

    Off a terminal nothing of it is shown.
    """

    def __init__(
        self, what: str, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._moves: Sequence[Move] = ()
        self._pace = _Pace(clock)
        columns: list[ProgressColumn] = [
            TextColumn(what),
            BarColumn(_BAR),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        ]
        super().__init__(
            *columns,
            console=console,
            disable=not console.is_terminal,
            # what is printed meanwhile goes above the bar, but never out of a pipe into a terminal
            redirect_stdout=is_terminal(sys.stdout),
            redirect_stderr=is_terminal(sys.stderr),
        )

    def move(self, moves: "Sequence[Move]") -> None:
        """Show these trainings from now on."""
        self._pace.look(moves)
        self._moves = tuple(moves)

    def stop(self) -> None:
        """Leave the bar alone behind."""
        self._moves = ()
        super().stop()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        moves = self._moves  # the thread that draws is another one than that which is told
        if moves:
            yield self._lines(moves)

    def _lines(self, moves: "Sequence[Move]") -> Table:
        bars = self.console.width >= _WIDE
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(overflow="ellipsis")
        for _ in range(4 + bars):
            table.add_column(no_wrap=True)
        for move in moves:
            name = Text(move.name, no_wrap=True, overflow="ellipsis")
            bar = [ProgressBar(move.steps, move.step or 0, width=_BAR)] if bars else []
            table.add_row(name, *bar, *self._cells(move))
        return table

    def _cells(self, move: "Move") -> list[str]:
        if move.step is None:
            return ["starting", "", "", ""]
        return [
            f"step {move.step:,} of {move.steps:,}",
            "" if move.loss is None else f"loss {move.loss:.3f}",
            "" if move.dice is None else f"Dice {move.dice:.3f}",
            "scoring" if move.step >= move.steps else self._pace.left(move),
        ]


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether somebody looks at the stream; a program without a terminal may have none."""
    return stream is not None and stream.isatty()


class _Pace:
    """How fast trainings go, from where each was when it was first seen."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: dict[str, tuple[float, int]] = {}
        self._left: dict[str, float] = {}

    def look(self, moves: "Sequence[Move]") -> None:
        """Look at where they are; those that have ended are forgotten."""
        now, first, left = self._clock(), {}, {}
        for move in moves:
            if move.step is None:
                continue
            at, step = first[move.name] = self._first.get(move.name, (now, move.step))
            if move.step > step:
                left[move.name] = (now - at) / (move.step - step) * (move.steps - move.step)
        self._first, self._left = first, left

    def left(self, move: "Move") -> str:
        seconds = self._left.get(move.name)
        return "" if seconds is None else f"{duration(seconds)} left"
