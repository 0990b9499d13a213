"""Distances between the surfaces of two masks, in mm, with the voxels' real spacing.

A mask that reaches the border of its volume has a surface there. Masks are 2-D or 3-D; surfaces of
2-D masks are contours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SurfaceScores:
    """How two surfaces agree; a score that has no value is NaN.

    `hd95` (mm): of the distances from each boundary voxel to the nearest one of the other mask, the
    95th percentile, the worse of both directions. NaN unless both masks hold something.

    `surface_dice`: the share of both surfaces, by area, that lies within the tolerance of the other
    one (normalised surface distance). 0 where one mask is empty, NaN where both are.

    `boundary_precision`: the share of the predicted surface that lies within the tolerance of the
    reference's. 0 without a reference, NaN without a prediction.

    Source: boundary voxels, areas and both scores are those of MONAI's `compute_hausdorff_distance`
    and `compute_surface_dice(use_subvoxels=True)`, whose areas are those of DeepMind's
    surface-distance: of the patches that a surface cuts from each 2^n block of voxels.
    """

    hd95: float
    surface_dice: float
    boundary_precision: float


def surface_scores(
    prediction: Mask, reference: Mask, spacing: Sequence[float], *, tolerance: float
) -> SurfaceScores:
    """Compare the surfaces of two masks of one shape; spacing and tolerance in mm."""
    if not prediction.any() or not reference.any():
        either = prediction.any() or reference.any()
        nothing = 0.0 if either else math.nan
        return SurfaceScores(math.nan, nothing, 0.0 if prediction.any() else math.nan)
    from monai.metrics import get_mask_edges

    box = bounding_box(prediction | reference)
    cropped = np.pad(prediction[box], 1), np.pad(reference[box], 1)
    boundary, other = get_mask_edges(*cropped, crop=False)
    hd95 = max(
        float(np.percentile(_distances(a, b, spacing), 95))
        for a, b in ((boundary, other), (other, boundary))
    )
    surface, areas = _patches(cropped[0], spacing)
    wanted, wanted_areas = _patches(cropped[1], spacing)
    near = areas[_distances(surface, wanted, spacing) <= tolerance].sum()
    found = wanted_areas[_distances(wanted, surface, spacing) <= tolerance].sum()
    return SurfaceScores(
        hd95,
        float((near + found) / (areas.sum() + wanted_areas.sum())),
        float(near / areas.sum()),
    )


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box around what a mask holds; empty slices where that is nothing."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0))
    return tuple(box)


def _distances(surface: Mask, other: Mask, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Return the distance in mm of each point of a surface, in order, to the nearest of another."""
    from monai.metrics import get_surface_distance

    return np.asarray(get_surface_distance(surface, other, spacing=spacing), dtype=np.float32)


def _patches(mask: Mask, spacing: Sequence[float]) -> tuple[Mask, NDArray[np.float64]]:
    """Return which blocks of 2^n voxels the surface cuts, and the area of each such patch."""
    table, corners = _areas(tuple(float(size) for size in spacing))
    codes = np.zeros([size - 1 for size in mask.shape], dtype=np.uint8)
    for corner, bit in corners.items():
        window = tuple(slice(at, at + size) for at, size in zip(corner, codes.shape, strict=True))
        codes |= np.where(mask[window], np.uint8(bit), np.uint8(0))
    surface: Mask = (codes != 0) & (codes != len(table) - 1)
    return surface, table[codes[surface]]


@lru_cache(maxsize=64)
def _areas(
    spacing: tuple[float, ...],
) -> tuple[NDArray[np.float64], dict[tuple[int, ...], int]]:
    """Return the area (mm^2; mm in 2-D) per code of a block, and each corner's bit in the code."""
    from monai.metrics.utils import get_code_to_measure_table

    table, kernel = get_code_to_measure_table(spacing)
    bits: Any = kernel.numpy()[0, 0]
    corners = {corner: int(bits[corner]) for corner in np.ndindex(bits.shape)}
    return table.numpy().astype(np.float64), corners
