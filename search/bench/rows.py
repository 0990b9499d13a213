"""Trainings that ended, read back from what wrote them, and as tables for others to read."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archspec.files import write_text
from search.bench.settings import CASES, ROWS
from search.trials.cases import CaseScores


@dataclass(frozen=True)
class Row:
    """A training: Dice of its validation cases by case, and by class, group and `mean`.

    `steps` and `seconds` are None where they are not known.
    """

    network: str
    dataset: str
    fold: int
    seed: int
    trial_hash: str
    steps: int | None
    seconds: float | None
    cases: CaseScores

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.dataset, self.network, self.fold, self.seed


_OF_ROW = ("network", "dataset", "fold", "seed", "trial_hash", "steps", "seconds", "cases", "dice")
_OF_CASE = ("network", "dataset", "fold", "seed", "case", "person", "score", "dice")


def write_rows(folder: Path, rows: Sequence[Row], person: Mapping[tuple[str, str], str]) -> None:
    """Write a line per training, and one per training, case and class.

    `person` has that of each (dataset, case), where persons are known.

    Raises:
        WriteError: it cannot be written.
    """
    write_text(folder / ROWS, _csv(_OF_ROW, map(_row, rows)))
    lines = (
        [
            *(row.network, row.dataset, row.fold, row.seed, case),
            *(person.get((row.dataset, case), ""), name, _number(value)),
        ]
        for row in rows
        for case, scores in row.cases.items()
        for name, value in scores.items()
    )
    write_text(folder / CASES, _csv(_OF_CASE, lines))


def _row(row: Row) -> list[object]:
    means = [scores["mean"] for scores in row.cases.values() if math.isfinite(scores["mean"])]
    dice = math.fsum(means) / len(means) if means else math.nan
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    return [
        *(row.network, row.dataset, row.fold, row.seed, row.trial_hash),
        *("" if row.steps is None else row.steps, seconds, len(row.cases), _number(dice)),
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _csv(names: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    return text.getvalue()
