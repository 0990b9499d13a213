"""Predicted masks against references, and against another network's: everything found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archspec.scoring.labels import DatasetLabels
from archspec.scoring.pairs import Comparison, check_same_cases, compare
from archspec.scoring.scores import CONVENTIONS, evaluate_folder
from archspec.scoring.summary import FolderScores, folder_scores, folders_csv
from archspec.scoring.text import (
    compared_sizes,
    comparison_lines,
    folder_lines,
    shortened,
    size_lines,
    wrapped,
)
from blocks.errors import SpecError, argument


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The scores of one folder or two; `comparison` is that of two.

    `missing` are references without a prediction that were left out, `cases` counts the others.
    """

    references: str
    tolerance_mm: float
    seed: int
    cases: int
    missing: tuple[str, ...]
    dimensions: int
    finest_spacing_mm: float
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    evaluations: tuple[FolderScores, ...]
    comparison: Comparison | None

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the page of `archspec evaluate`, at most 80 columns wide."""
        lines = [*self._head()]
        letters = ("predictions  ",) if len(self.evaluations) == 1 else ("A  ", "B  ")
        for letter, folder in zip(letters, self.evaluations, strict=True):
            lines += ["", *shortened(f"{letter}{folder.predictions}"), *folder_lines(folder)]
        if self.comparison is None:
            lines += size_lines(self.evaluations[0], self.dimensions)
        else:
            lines += compared_sizes(self.evaluations[0], self.comparison, self.dimensions)
            lines += comparison_lines(self.comparison)
        lines.append("")
        for convention in CONVENTIONS:
            lines += wrapped(convention)
        return "\n".join([*lines, "Every case and class: --json or --csv FILE."])

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec evaluate --json` prints; what has no value is None."""
        return {
            "references": self.references,
            "tolerance_mm": self.tolerance_mm,
            "seed": self.seed,
            "cases": self.cases,
            "missing": list(self.missing),
            "dimensions": self.dimensions,
            "finest_spacing_mm": self.finest_spacing_mm,
            "classes": list(self.classes),
            "groups": list(self.groups),
            "conventions": list(CONVENTIONS),
            "evaluations": [folder.to_json() for folder in self.evaluations],
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }

    def csv(self) -> str:
        """Return one line per folder, case and class."""
        return folders_csv(self.evaluations)

    def _head(self) -> list[str]:
        unit = "mm"
        if self.dimensions == 2:  # formats without a spacing are read with 1
            unit += " or pixels, in plane" if self.finest_spacing_mm == 1 else ", in plane"
        cases = f"{self.cases} case{'s' * (self.cases != 1)}"
        lines = [f"{cases}, tolerance {self.tolerance_mm:g} {unit}"]
        lines += shortened(f"references  {self.references}")
        if self.missing:
            count = len(self.missing)
            lines += wrapped(
                f"PARTIAL: {count} reference{'s' * (count != 1)} without a prediction left out "
                f"({self.missing[0]}{', ...' * (count > 1)})"
            )
        if self.tolerance_mm < self.finest_spacing_mm:
            lines += wrapped(
                f"The tolerance is below the finest spacing ({self.finest_spacing_mm:g} mm): "
                "a surface off by one voxel counts as wrong."
            )
        return lines


def evaluate(
    predictions: str | Path,
    references: str | Path,
    *,
    against: str | Path | None = None,
    dataset_json: str | Path | None = None,
    tolerance: float = 2.0,
    seed: int = 0,
    partial: bool = False,
    on_case: Callable[[str], None] = lambda _: None,
) -> Evaluated:
    """Score a folder of masks: Dice, HD95, surface Dice, by case, class and size; `print` it.

    `against` is another network's folder of the same cases, compared by case with a bootstrap from
    `seed`. `dataset_json` names the labels; by default it lies beside the references, or among the
    masks. `tolerance` says how far off a surface may be, in mm. `partial` leaves out references
    without a prediction. `on_case` hears of each case before it is read.

    Raises:
        SpecError: a folder, a mask or the labels are missing, or masks do not fit each other.
    """
    first, wanted = Path(predictions), Path(references)
    other = None if against is None else Path(against)
    folders = [first] if other is None else [first, other]
    for folder in (*folders, wanted):
        if not folder.is_dir():
            raise SpecError("no such folder", where=folder)
    if other is not None and other.resolve() == first.resolve():
        raise SpecError(
            "the folder that it would be compared with", where=argument("against", other)
        )
    labels = DatasetLabels.read(Path(dataset_json or _dataset_json(wanted, first)))
    if other is not None:
        check_same_cases(first, other, labels.file_ending)
    evaluations = [
        evaluate_folder(
            folder, wanted, labels, tolerance=tolerance, partial=partial, on_case=on_case
        )
        for folder in folders
    ]
    a, *b = evaluations
    return Evaluated(
        references=str(wanted),
        tolerance_mm=tolerance,
        seed=seed,
        cases=len(a.cases),
        missing=a.missing,
        dimensions=a.dimensions,
        finest_spacing_mm=a.finest,
        classes=tuple(labels.classes),
        groups=tuple(labels.groups),
        evaluations=tuple(folder_scores(one, labels.classes) for one in evaluations),
        comparison=compare(a, b[0], labels.classes, seed=seed) if b else None,
    )


def _dataset_json(references: Path, predictions: Path) -> Path:
    """Return the dataset.json beside the references, or among the masks, where nnU-Net puts one."""
    places = [references.parent, references, predictions]
    for place in places:
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    raise SpecError(
        "no such file", where=places[0] / "dataset.json", suggestion="give `dataset_json`"
    )
