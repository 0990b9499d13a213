"""What a running search shows: a bar with the time left, or a line per event off a terminal."""

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from search.loop import Event

_ENDS = ("done", "stopped", "failed")


class SearchDisplay:
    """Show events of a search; the time left is estimated from the trials that ended."""

    def __init__(self, total: int) -> None:
        self.console = Console()
        self.started = time.monotonic()
        self.first_done: int | None = None
        self.progress = Progress(
            TextColumn("search"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.bar = self.progress.add_task("search", total=total, left="")

    def __enter__(self) -> "SearchDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, event: "Event") -> None:
        """Print one event and move the bar."""
        if self.first_done is None:
            self.first_done = event.done
        left = self._left(event)
        self.progress.update(self.bar, completed=event.done, left=left)
        number = f"trial {event.number}" if event.number >= 0 else "search"
        rest = f", {left}" if event.done < event.total else ""
        suffix = f" [{event.done}/{event.total}{rest}]" if event.kind in _ENDS else ""
        self.console.print(
            f"{number}: {event.text}{suffix}", markup=False, highlight=False, soft_wrap=True
        )

    def _left(self, event: "Event") -> str:
        assert self.first_done is not None
        ended = event.done - self.first_done
        if ended <= 0:
            return "time left: known after the first trial"
        seconds = (time.monotonic() - self.started) / ended * (event.total - event.done)
        return f"about {seconds / 60:.1f} min left"
