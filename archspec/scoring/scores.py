"""Score a folder of predicted masks against references, per case, class and size of the structure.

Conventions, also in `CONVENTIONS`: a structure that neither mask holds has no score (NaN) and is
left out of means; one that only one mask holds has Dice and surface Dice 0 and no HD95, and is
counted as missed or invented, since a mean of HD95 would otherwise hide it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from archspec.scoring.dice import dice_of_sizes
from archspec.scoring.labels import DatasetLabels
from archspec.scoring.masks import MaskFile, mask_names, read_mask
from archspec.scoring.surface import bounding_box, surface_scores
from blocks.base import SpecError

Metric = Literal["dice", "hd95_mm", "surface_dice", "boundary_precision"]
METRICS: tuple[Metric, ...] = ("dice", "hd95_mm", "surface_dice", "boundary_precision")
TERCILES = ("small", "medium", "large")
CONVENTIONS = (
    "HD95: 95th percentile of the distances between boundary voxels, in mm, the worse of both "
    "directions.",
    "Surface Dice: share of both surfaces, by area, within the tolerance of the other; boundary "
    "precision: that share of the predicted surface.",
    "A structure that only one mask holds (missed, invented) has Dice and surface Dice 0 and no "
    "HD95; a missed one has no boundary precision. One in neither mask is not counted.",
)
_FEWEST_FOR_TERCILES = 9


@dataclass(frozen=True, slots=True)
class Scores:
    """One structure in one case; sizes in mm^3 (mm^2 in 2-D), a score without a value is NaN."""

    dice: float
    hd95_mm: float
    surface_dice: float
    boundary_precision: float
    reference_size: float
    prediction_size: float

    def value(self, metric: Metric) -> float:
        """Return one of `METRICS`."""
        values = (self.dice, self.hd95_mm, self.surface_dice, self.boundary_precision)
        return values[METRICS.index(metric)]

    def to_json(self) -> dict[str, float | None]:
        """Return plain data; a score without a value is None."""
        return {
            **{metric: number(self.value(metric)) for metric in METRICS},
            "reference_size": self.reference_size,
            "prediction_size": self.prediction_size,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one folder: `scores[name][k]` of class or group `name` in `cases[k]`.

    `missing` are references without a prediction; `finest` is the smallest spacing in mm.
    """

    folder: Path
    cases: tuple[str, ...]
    missing: tuple[str, ...]
    dimensions: int
    finest: float
    scores: dict[str, list[Scores]]

    def values(self, metric: Metric, name: str) -> list[float]:
        """Return one metric over the cases."""
        return [scores.value(metric) for scores in self.scores[name]]


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: DatasetLabels,
    *,
    tolerance: float,
    partial: bool = False,
    on_case: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Score every reference's prediction; tolerance in mm.

    With `partial`, references without a prediction are left out. `on_case` hears of each case
    before it is read.

    Raises:
        SpecError: no masks, one missing on either side, grids that differ, unknown labels.
    """
    wanted, found = (mask_names(folder, labels.file_ending) for folder in (references, predictions))
    if not wanted or not found:
        raise SpecError(
            f"no {labels.file_ending} masks", where=predictions if wanted else references
        )
    if strange := sorted(set(found) - set(wanted)):
        raise SpecError(
            f"no reference for {predictions / strange[0]}", where=references / strange[0]
        )
    missing = tuple(name for name in wanted if name not in set(found))
    if missing and not partial:
        raise SpecError(
            f"no prediction ({len(missing)} of {len(wanted)} missing)",
            where=predictions / missing[0],
            suggestion="`partial` scores the others",
        )
    scores: dict[str, list[Scores]] = {name: [] for name in labels.scored}
    dimensions, finest = 0, math.inf
    for name in found:
        on_case(name)
        prediction = read_mask(predictions / name, labels.dataset_json)
        reference = read_mask(references / name, labels.dataset_json)
        labels.check(prediction, predicted=True)
        labels.check(reference, predicted=False)
        prediction.same_grid(reference)
        for key, value in score_case(prediction, reference, labels, tolerance=tolerance).items():
            scores[key].append(value)
        dimensions = max(dimensions, len(reference.spacing))
        finest = min(finest, *reference.spacing)
    cases = tuple(name.removesuffix(labels.file_ending) for name in found)
    return Evaluation(predictions, cases, missing, dimensions, finest, scores)


def score_case(
    prediction: MaskFile, reference: MaskFile, labels: DatasetLabels, *, tolerance: float
) -> dict[str, Scores]:
    """Return the scores of each class and group of one case, voxels to ignore left out.

    Ignored voxels belong to neither mask, so that surfaces of both are cut off there.
    """
    box = bounding_box((prediction.labels > 0) | (reference.labels > 0))
    predicted, wanted = prediction.labels[box], reference.labels[box]
    kept = wanted != labels.ignore if labels.ignore is not None else True
    voxel = math.prod(reference.spacing)
    scores = {}
    for name, values in labels.scored.items():
        a, b = np.isin(predicted, values) & kept, np.isin(wanted, values) & kept
        in_a, in_b = int(a.sum()), int(b.sum())
        surface = surface_scores(a, b, reference.spacing, tolerance=tolerance)
        scores[name] = Scores(
            dice_of_sizes(int((a & b).sum()), in_a, in_b),
            surface.hd95,
            surface.surface_dice,
            surface.boundary_precision,
            in_b * voxel,
            in_a * voxel,
        )
    return scores


def terciles(scores: Sequence[Scores]) -> list[list[int]] | None:
    """Return the cases (indices) of the smallest, middle and largest third by reference size.

    Cases without the structure are left out. None with fewer than nine cases, or all of one size.
    """
    present = [k for k, one in enumerate(scores) if one.reference_size > 0]
    present.sort(key=lambda k: scores[k].reference_size)
    sizes = {scores[k].reference_size for k in present}
    if len(present) < _FEWEST_FOR_TERCILES or len(sizes) < len(TERCILES):
        return None
    return [part.tolist() for part in np.array_split(present, len(TERCILES))]


def number(value: float) -> float | None:
    """Return a value for JSON, which knows no NaN."""
    return value if math.isfinite(value) else None
