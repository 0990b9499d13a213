"""Surface metrics, held to brute force, to shapes moved by known mm, and to MONAI's functions."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from archspec.scoring.surface import surface_scores

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 1.0, 0.7), (0.4, 2.0)]
Mask = NDArray[np.bool_]


def box(shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def blob(shape: tuple[int, ...], seed: int) -> Mask:
    """Return a smooth random shape away from the border."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    mask: Mask = noise > np.quantile(noise, 0.7)
    return np.pad(mask[(slice(2, -2),) * len(shape)], 2)


def boundary(mask: Mask, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the places in mm of voxels with a neighbour across a face outside the mask."""
    inside = {tuple(place) for place in np.argwhere(mask)}
    steps = [tuple(row) for row in (*np.eye(mask.ndim, dtype=int), *-np.eye(mask.ndim, dtype=int))]
    edge = [
        place
        for place in inside
        if any(
            tuple(a + b for a, b in zip(place, step, strict=True)) not in inside for step in steps
        )
    ]
    return np.array(edge) * spacing


def cuboid_surface(
    start: tuple[int, ...], stop: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points between voxels around a cuboid, in mm, and the area that each stands for.

    A surface halfway between voxels inside and outside: a rectangle on faces, one over the diagonal
    of half a voxel along edges, a triangle between half voxels at corners.
    """
    points, areas = [], []
    for place in itertools.product(*(range(a - 1, b) for a, b in zip(start, stop, strict=True))):
        across = [n for n, at in enumerate(place) if at in (start[n] - 1, stop[n] - 1)]
        half = [spacing[n] / 2 for n in across]
        along = math.prod(spacing[n] for n in range(len(place)) if n not in across)
        if not across:
            continue
        if len(across) == 1:
            area = along
        elif len(across) == 2:
            area = math.hypot(*half) * along
        else:
            sides = (half[0] * half[1], half[1] * half[2], half[2] * half[0])
            area = math.hypot(*sides) / 2
        points.append([(at + 0.5) * size for at, size in zip(place, spacing, strict=True)])
        areas.append(area)
    return np.array(points), np.array(areas)


@pytest.mark.parametrize("tolerance", [0.0, 0.75, 2.0, 5.0])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_cuboids_against_brute_force(spacing: tuple[float, ...], tolerance: float) -> None:
    n = len(spacing)
    start, stop, other_start, other_stop = (
        (3, 4, 2)[:n],
        (8, 12, 9)[:n],
        (4, 4, 3)[:n],
        (10, 11, 9)[:n],
    )
    a, area_a = cuboid_surface(start, stop, spacing)
    b, area_b = cuboid_surface(other_start, other_stop, spacing)
    between = cdist(a, b)
    near = area_a[between.min(axis=1) <= tolerance].sum()
    found = area_b[between.min(axis=0) <= tolerance].sum()
    shape = (14, 15, 12)[:n]
    masks = box(shape, start, stop), box(shape, other_start, other_stop)
    scores = surface_scores(*masks, spacing, tolerance=tolerance)
    assert scores.boundary_precision == pytest.approx(near / area_a.sum(), rel=1e-5)
    assert scores.surface_dice == pytest.approx(
        (near + found) / (area_a.sum() + area_b.sum()), rel=1e-5
    )
    assert 0 < scores.surface_dice < 1 or tolerance >= 2


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_hd95_against_brute_force(spacing: tuple[float, ...]) -> None:
    shape = (16, 20, 18)[: len(spacing)]
    prediction, reference = blob(shape, 0), blob(shape, 1)
    between = cdist(boundary(prediction, spacing), boundary(reference, spacing))
    wanted = max(np.percentile(between.min(axis=axis), 95) for axis in (0, 1))
    assert surface_scores(prediction, reference, spacing, tolerance=1).hd95 == pytest.approx(
        wanted, rel=1e-5
    )


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_scores_are_monai_s(spacing: tuple[float, ...]) -> None:
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    shape = (20, 16, 18)[: len(spacing)]
    for seed in range(3):
        masks = blob(shape, seed), blob(shape, seed + 10)
        ours = surface_scores(*masks, spacing, tolerance=1.5)
        tensors = [torch.from_numpy(mask)[None, None] for mask in masks]
        hd95 = compute_hausdorff_distance(
            *tensors, include_background=True, percentile=95, spacing=spacing
        )
        dice = compute_surface_dice(
            *tensors, [1.5], include_background=True, spacing=spacing, use_subvoxels=True
        )
        assert (ours.hd95, ours.surface_dice) == pytest.approx((hd95.item(), dice.item()), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shift_is_measured_in_mm(axis: int) -> None:
    """A cube moved by two voxels: no surface is farther than that, faces across it are."""
    spacing = (5.0, 1.0, 0.7)
    reference = box((30, 30, 30), (8, 8, 8), (18, 18, 18))
    prediction = np.roll(reference, 2, axis=axis)
    shift = 2 * spacing[axis]
    above = surface_scores(prediction, reference, spacing, tolerance=shift + 1e-3)
    below = surface_scores(prediction, reference, spacing, tolerance=shift - 1e-3)
    assert above.hd95 == pytest.approx(shift)
    assert (above.surface_dice, above.boundary_precision) == (1.0, 1.0)
    assert 0 < below.surface_dice < 1
    assert below.surface_dice == pytest.approx(below.boundary_precision)


def test_a_sphere_within_another() -> None:
    """Concentric spheres: distance and precision from the radii, up to a voxel."""
    spacing = (0.5, 0.5, 1.0)
    offset = np.indices((60, 60, 30)) - np.array([30, 30, 15])[:, None, None, None]
    radius = np.sqrt(((offset * np.array(spacing)[:, None, None, None]) ** 2).sum(axis=0))
    small, large = radius <= 8, radius <= 11
    scores = surface_scores(small, large, spacing, tolerance=1.5)
    assert scores.hd95 == pytest.approx(3, abs=0.6)
    assert scores.surface_dice == scores.boundary_precision == 0
    assert surface_scores(small, large, spacing, tolerance=4.5).surface_dice == 1


def test_precision_looks_at_the_prediction_only() -> None:
    """Half of the structure found: its surface is right, but much of the reference's is missed."""
    reference = box((40, 12, 12), (2, 2, 2), (38, 10, 10))
    half = box((40, 12, 12), (2, 2, 2), (20, 10, 10))
    found = surface_scores(half, reference, (1, 1, 1), tolerance=1)
    reverse = surface_scores(reference, half, (1, 1, 1), tolerance=1)
    assert found.boundary_precision > 0.9 > found.surface_dice > reverse.boundary_precision
    assert found.surface_dice == pytest.approx(reverse.surface_dice)


def test_border_of_the_volume_is_surface() -> None:
    whole = np.ones((6, 6, 6), dtype=bool)
    inner = box((6, 6, 6), (1, 1, 1), (5, 5, 5))
    scores = surface_scores(whole, inner, (2, 2, 2), tolerance=0.5)
    faces, edges, corners = [2.0] * 96, [math.sqrt(8)] * 48, [math.sqrt(12)] * 8
    assert scores.hd95 == pytest.approx(np.percentile([*faces, *edges, *corners], 95))
    assert scores.surface_dice == 0
    assert surface_scores(whole, whole, (2, 2, 2), tolerance=0).surface_dice == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "surface_dice", "precision"),
    [(False, False, math.nan, math.nan), (True, False, 0, 0), (False, True, 0, math.nan)],
)
def test_empty_masks(
    prediction: bool, reference: bool, surface_dice: float, precision: float
) -> None:
    masks = (np.full((4, 4, 4), filled) for filled in (prediction, reference))
    scores = surface_scores(*masks, (1, 1, 1), tolerance=1)
    assert math.isnan(scores.hd95)
    assert (scores.surface_dice, scores.boundary_precision) == pytest.approx(
        (surface_dice, precision), nan_ok=True
    )


def test_where_the_masks_lie_changes_nothing() -> None:
    masks = blob((14, 14, 14), 3), blob((14, 14, 14), 4)
    moved = [np.pad(mask, ((0, 9), (5, 2), (30, 0))) for mask in masks]
    assert surface_scores(*moved, (3, 1, 1), tolerance=1) == surface_scores(
        *masks, (3, 1, 1), tolerance=1
    )
