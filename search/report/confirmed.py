"""What a report knows of the front trained again: `confirmed.json`, and is it of this front?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.base import SpecError
from search.report.trials import ReportTrial

FILE = "confirmed.json"


@dataclass(frozen=True)
class Confirmed:
    """What `archspec confirm` found; `current` says that it is of the front as it is now."""

    content: dict[str, Any]
    current: bool

    @property
    def part(self) -> str:
        """Return which cases are compared: test, or validation where there is no test part."""
        return str(self.content["compared_on"])

    @property
    def num_cases(self) -> int:
        return int(self.content["num_cases"][self.part])

    @property
    def seeds(self) -> int:
        return int(self.content["seeds"])

    @property
    def label(self) -> str:
        """Return what the marks in a figure are."""
        spread = ", bars: sd" if self.seeds > 1 else ""
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        return f"trained again, {self.part}: mean of {seeds}{spread}"

    def marks(self) -> list[tuple[int, float, float, float]]:
        """Return trial, GFLOPs, mean Dice and its standard deviation over seeds, where known."""
        found = []
        for point in self.content["points"]:
            scores = point[self.part]
            if scores["mean"] is not None:
                spread = scores["sd"] or 0.0
                found.append((point["trial"], point["gflops"], scores["mean"], spread))
        return found


def read_confirmed(folder: Path, front: Sequence[ReportTrial]) -> Confirmed | None:
    """Return what the folder holds, None where the front was never trained again.

    Raises:
        SpecError: the file is not what `archspec confirm` writes.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        numbers = [point["trial"] for point in content["points"]]
        found = Confirmed(content, current=numbers == [trial.number for trial in front])
        assert found.num_cases >= 0 and found.seeds > 0 and isinstance(found.marks(), list)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise SpecError(
            f"{file}: cannot be read; archspec confirm {folder} writes it again, from the "
            "trainings that it keeps"
        ) from None
    return found
