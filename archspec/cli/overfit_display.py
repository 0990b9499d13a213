"""What a running overfit shows: one line that changes, or one in a hundred steps off a terminal."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from archspec.overfitting import Step
from archspec.resolution_cap import Cap

_EVERY = 100


class OverfitDisplay:
    """Show steps on stderr, so that stdout holds the result alone."""

    def __init__(self, total: int) -> None:
        self.text = "before the first step"
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
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, step: Step, cap: Cap) -> None:
        """Move the bar; off a terminal print the first step and then some."""
        known = f"loss {step.loss:.3f}, Dice {step.dice:.3f} of cap {cap.mean:.3f}"
        self.text = f"after step {step.number}: {known}"
        self.progress.update(self.bar, completed=step.number, text=known)
        if not self.console.is_terminal and step.number % _EVERY == 1:
            line = f"step {step.number}: {known}, {step.seconds:.0f} s"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
