"""What a report knows of the front trained again: `confirmed.json`, and is it of this front?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archspec.text import command_line
from blocks.base import SpecError
from search.report.trials import ReportTrial
from search.retrain.confirmation import RESULT, Confirmation, Part


@dataclass(frozen=True)
class Confirmed:
    """What `archspec confirm` found; `current` says that it is of the front as it is now."""

    found: Confirmation
    current: bool

    @property
    def part(self) -> Part:
        """Return which cases are compared: test, or validation where there is no test part."""
        return self.found.compared_on

    @property
    def num_cases(self) -> int:
        return self.found.num_cases[self.part]

    @property
    def label(self) -> str:
        """Return what the marks in a figure are."""
        number = self.found.seeds
        spread = ", bars: sd" if number > 1 else ""
        seeds = f"{number} seed{'s' * (number > 1)}"
        return f"trained again, {self.part}: mean of {seeds}{spread}"

    def marks(self) -> list[tuple[int, float, float, float]]:
        """Return trial, GFLOPs, mean Dice and its standard deviation over seeds, where known."""
        found = []
        for point in self.found.points:
            scores = point.scores(self.part)
            if scores.mean is not None:
                found.append((point.trial, point.gflops, scores.mean, scores.sd or 0.0))
        return found


def read_confirmed(folder: Path, front: Sequence[ReportTrial]) -> Confirmed | None:
    """Return what the folder holds, None where the front was never trained again.

    Raises:
        SpecError: the file is not what `archspec confirm` writes.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    try:
        found = Confirmation.from_json(json.loads(file.read_bytes().decode()))
        found.text()  # every figure of it
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SpecError(
            "damaged",
            where=file,
            suggestion=f"{command_line('archspec', 'confirm', folder)} writes it again, from the "
            "trainings that it keeps",
        ) from None
    numbers = [point.trial for point in found.points]
    return Confirmed(found, current=numbers == [trial.number for trial in front])
