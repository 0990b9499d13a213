"""Predicted masks against references, and against another network's: everything found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from archspec.scoring.labels import DatasetLabels
from archspec.scoring.pairs import check_same_cases, compare
from archspec.scoring.scores import CONVENTIONS, evaluate_folder, evaluation_json
from archspec.scoring.text import evaluation_text
from blocks.base import SpecError


class Evaluated(dict[str, Any]):
    """What `archspec evaluate --json` prints; as text, the page of `archspec evaluate`."""

    def __str__(self) -> str:
        return evaluation_text(self)


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
            raise SpecError(f"{folder}: no such folder")
    if other is not None and other.resolve() == first.resolve():
        raise SpecError(f"--against {other}: the folder that it would be compared with")
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
        missing=list(a.missing),
        dimensions=a.dimensions,
        finest_spacing_mm=a.finest,
        classes=list(labels.classes),
        groups=list(labels.groups),
        conventions=list(CONVENTIONS),
        evaluations=[evaluation_json(one, labels.classes) for one in evaluations],
        comparison=compare(a, b[0], labels.classes, seed=seed) if b else None,
    )


def _dataset_json(references: Path, predictions: Path) -> Path:
    """Return the dataset.json beside the references, or among the masks, where nnU-Net puts one."""
    places = [references.parent, references, predictions]
    for place in places:
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    raise SpecError(f"{places[0] / 'dataset.json'}: no such file; give --dataset-json")
