"""Sum up the scores of one folder: per class, and per size of the structure."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archspec.scoring.dice import mean
from archspec.scoring.scores import METRICS, TERCILES, Evaluation, Metric, Scores, number, terciles


@dataclass(frozen=True, slots=True)
class Means:
    """A mean per metric, over cases or over classes; None where nothing has a value."""

    dice: float | None
    hd95_mm: float | None
    surface_dice: float | None
    boundary_precision: float | None

    def value(self, metric: Metric) -> float | None:
        """Return one of `METRICS`."""
        values = (self.dice, self.hd95_mm, self.surface_dice, self.boundary_precision)
        return values[METRICS.index(metric)]


@dataclass(frozen=True, slots=True)
class Summary(Means):
    """Means over cases, and how many each stands on: `cases` have it in either mask."""

    cases: int
    hd95_cases: int
    missed: int
    invented: int
    absent: int


@dataclass(frozen=True, slots=True)
class SizeSummary:
    """The cases of one tercile; sizes of the structure in the reference, in mm^3 (mm^2 in 2-D)."""

    smallest: float
    largest: float
    summary: Summary

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"smallest": self.smallest, "largest": self.largest, **asdict(self.summary)}


@dataclass(frozen=True, slots=True)
class FolderScores:
    """One folder's predictions; `mean` is over classes, not groups, and `per_case` by name.

    `terciles` has None for a class with too few cases, or all of one size.
    """

    predictions: str
    mean: Means
    per_class: dict[str, Summary]
    terciles: dict[str, dict[str, SizeSummary] | None]
    per_case: dict[str, dict[str, Scores]]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; what has no value is None."""
        return {
            "predictions": self.predictions,
            "mean": asdict(self.mean),
            "per_class": {name: asdict(found) for name, found in self.per_class.items()},
            "terciles": {
                name: parts and {tercile: found.to_json() for tercile, found in parts.items()}
                for name, parts in self.terciles.items()
            },
            "per_case": {
                case: {name: one.to_json() for name, one in scores.items()}
                for case, scores in self.per_case.items()
            },
        }


def folder_scores(evaluation: Evaluation, classes: Iterable[str]) -> FolderScores:
    """Sum up one folder; the mean is over `classes`."""
    per_class = {name: _summary(scores) for name, scores in evaluation.scores.items()}
    return FolderScores(
        predictions=str(evaluation.folder),
        mean=_means([per_class[name] for name in classes]),
        per_class=per_class,
        terciles={name: _by_size(scores) for name, scores in evaluation.scores.items()},
        per_case={
            case: {name: scores[k] for name, scores in evaluation.scores.items()}
            for k, case in enumerate(evaluation.cases)
        },
    )


def folders_csv(folders: Iterable[FolderScores]) -> str:
    """Return one line per folder, case and class; what has no value is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ("predictions", "case", "class", *METRICS, "reference_size", "prediction_size")
    writer.writerow(header)
    for found in folders:
        for case, scores in found.per_case.items():
            for name, one in scores.items():
                writer.writerow([found.predictions, case, name, *one.to_json().values()])
    return out.getvalue()


def _means(found: Sequence[Scores | Means]) -> Means:
    columns = ([_nan(one.value(metric)) for one in found] for metric in METRICS)
    return Means(*(number(mean(column)) for column in columns))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _summary(scores: Sequence[Scores]) -> Summary:
    held = [(one.reference_size > 0, one.prediction_size > 0) for one in scores]
    return Summary(
        **asdict(_means(scores)),
        cases=sum(reference or prediction for reference, prediction in held),
        hd95_cases=held.count((True, True)),
        missed=held.count((True, False)),
        invented=held.count((False, True)),
        absent=held.count((False, False)),
    )


def _by_size(scores: Sequence[Scores]) -> dict[str, SizeSummary] | None:
    parts = terciles(scores)
    if parts is None:
        return None
    found = {}
    for tercile, part in zip(TERCILES, parts, strict=True):
        chosen = [scores[k] for k in part]
        sizes = [one.reference_size for one in chosen]
        found[tercile] = SizeSummary(min(sizes), max(sizes), _summary(chosen))
    return found
