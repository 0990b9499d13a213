"""What a running overfit shows: one line that changes, or lines now and then off a terminal."""

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from archspec.overfit.cap import Cap
from archspec.overfit.train import Step

_EVERY = 100
_SILENCE = 30.0


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

    def show(self, step: Step, cap: Cap) -> None:
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
