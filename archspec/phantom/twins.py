"""Read marks: where each piece of evidence lies, and what the nearest-twin rule makes of it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.painting import Floats, Region
from archspec.phantom.task import Marks

LANDMARK, LOW_TWIN, HIGH_TWIN = 1, 2, 3


class Twins(NamedTuple):
    """Hold the three regions of a landmark task."""

    landmark: Region
    same: Region
    other: Region


def centroid(evidence: Marks, mark: int) -> Floats:
    """Return the mean place (D, H, W) of a mark, in voxels."""
    place: Floats = np.argwhere(evidence == mark).mean(axis=0)
    return place


def mark_twins(shape: tuple[int, int, int], twins: Twins, landmark_side: int) -> Marks:
    """Mark a landmark and its twins; a twin's mark says its place along H, not its label."""
    evidence: NDArray[np.uint8] = np.zeros(shape, np.uint8)
    twins.landmark.paint(evidence, LANDMARK)
    twins.same.paint(evidence, HIGH_TWIN if landmark_side > 0 else LOW_TWIN)
    twins.other.paint(evidence, LOW_TWIN if landmark_side > 0 else HIGH_TWIN)
    return evidence


def nearest_twin(evidence: Marks) -> dict[int, str]:
    """Call the twin nearer to the landmark `twin_same`: true under turns, flips and scaling."""
    landmark = centroid(evidence, LANDMARK)
    away = {
        mark: float(np.linalg.norm(centroid(evidence, mark) - landmark))
        for mark in (LOW_TWIN, HIGH_TWIN)
    }
    same = min(away, key=away.__getitem__)
    return {mark: "twin_same" if mark == same else "twin_other" for mark in away}
