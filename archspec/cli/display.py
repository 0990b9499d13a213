"""What a search, trainings, overfit or prediction show: a bar, or lines off a terminal."""

import sys
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from archspec.cli.moves import MovingProgress, is_terminal

if TYPE_CHECKING:
    from archspec.inference.predict import Step as Tile
    from archspec.overfit.cap import Cap
    from archspec.overfit.train import Step
    from search.retrain.retrain import Progress as Trained
    from search.study.loop import Event

_ENDS = ("done", "stopped", "failed")
_EVERY = 100
_SILENCE = 30.0


class SearchDisplay:
    """Show events of a search; the time left is estimated from the trials that ended."""

    def __init__(self, total: int) -> None:
        self.console = Console()
        self.started = time.monotonic()
        self.first_done: int | None = None
        self.progress = MovingProgress("search", self.console)
        self.bar = self.progress.add_task("search", total=total, text="")
        self.move = self.progress.move

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
        self.progress.update(self.bar, completed=event.done, text=left)
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


class TrainingsDisplay:
    """Show on stderr how trainings go; off a terminal a line for each thing that happens."""

    def __init__(self) -> None:
        # not by FORCE_COLOR, which rich takes for a terminal: who reads a pipe wants lines
        self.console = Console(stderr=True, force_terminal=is_terminal(sys.stderr))
        self.progress = MovingProgress("train", self.console)
        self.bar = self.progress.add_task("train", total=None, text="")
        self.move = self.progress.move

    def __enter__(self) -> "TrainingsDisplay":
        return self  # what is refused before anything is trained leaves no bar behind

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, happened: "Trained") -> None:
        """Print what happened, and move the bar."""
        self.progress.update(self.bar, completed=happened.done, total=happened.total)
        self.progress.start()
        name = f"{happened.name}: " if happened.name else ""
        line = f"[{happened.done}/{happened.total}] {name}{happened.text}"
        if self.console.is_terminal:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


class OverfitDisplay:
    """Show steps on stderr, so that stdout holds the result alone.

    Off a terminal a line comes every 100 steps, and whenever none came for `silence` seconds.
    """

    def __init__(self, total: int, *, silence: float = _SILENCE) -> None:
        self.text = "before the first step"
        self.silence = silence
        self.began = self.printed = time.monotonic()
        self.ended = threading.Event()
        self.watch = threading.Thread(target=self._break_silence, daemon=True)
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("overfit"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.bar = self.progress.add_task("overfit", total=total, text="finding the cap")

    def __enter__(self) -> "OverfitDisplay":
        self.progress.start()
        if not self.console.is_terminal:
            self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.watch.is_alive():
            self.watch.join()
        self.progress.stop()

    def show(self, step: "Step", cap: "Cap") -> None:
        """Move the bar; off a terminal print the first step and then some."""
        known = f"loss {step.loss:.3f}, Dice {step.dice:.3f} of cap {cap.mean:.3f}"
        self.text = f"after step {step.number}: {known}"
        self.progress.update(self.bar, completed=step.number, text=known)
        if not self.console.is_terminal and step.number % _EVERY == 1:
            self._print()

    def _break_silence(self) -> None:
        while not self.ended.wait(max(self.printed + self.silence - time.monotonic(), 0.0)):
            if time.monotonic() >= self.printed + self.silence:
                self._print()

    def _print(self) -> None:
        self.printed = time.monotonic()
        line = f"{self.text}, {self.printed - self.began:.0f} s"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class PredictDisplay:
    """Show on stderr how many images are done, tiles of the present one included.

    Off a terminal each image has a line when it is begun.
    """

    def __init__(self) -> None:
        self.index = -1
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("predict"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.bar = self.progress.add_task("predict", total=None, text="before the first image")

    def __enter__(self) -> "PredictDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, tile: "Tile") -> None:
        """Move the bar; off a terminal print which image this is, once."""
        text = f"image {tile.index + 1} of {tile.num_cases}: {tile.case}"
        done = tile.index + tile.done / tile.total
        self.progress.update(self.bar, total=tile.num_cases, completed=done, text=text)
        if not self.console.is_terminal and tile.index > self.index:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.index = tile.index
