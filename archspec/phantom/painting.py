"""Paint shapes into volumes, in voxels, touching only the box around each shape.

Legend: D, H, W are the volume's axes; a point is (D, H, W) in voxels, 0 being the first centre.
"""

from math import ceil, floor, inf
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Point = tuple[float, float, float]
Shape = tuple[int, int, int]
Side = Literal[-1, 1]
Floats = NDArray[np.float64]
Box = tuple[slice, slice, slice]


STEP = 0.4
"""Voxels between the points of a curve: near enough for distances from it to be right to 0.02."""


def as_point(values: Floats) -> Point:
    """Return three numbers as a point."""
    depth, height, width = (float(value) for value in values)
    return depth, height, width


def coin(rng: np.random.Generator) -> Side:
    """Return one of two sides at even odds."""
    return 1 if rng.random() < 0.5 else -1


class Region(NamedTuple):
    """Hold some voxels of a volume: a box, and which of its voxels belong."""

    box: Box
    inside: NDArray[np.bool_]

    def paint(self, volume: NDArray[Any], value: float) -> None:
        """Set the region's voxels."""
        volume[self.box][self.inside] = value


def ellipsoid(shape: Shape, centre: Point, radii: Point) -> Region:
    """Return the voxels whose centres it holds; an infinite radius makes it a column there."""
    box = _box(shape, centre, radii)
    squares = [
        ((np.arange(part.start, part.stop) - middle) / radius) ** 2
        for part, middle, radius in zip(box, centre, radii, strict=True)
    ]
    return Region(box, squares[0][:, None, None] + squares[1][None, :, None] + squares[2] <= 1.0)


def curve_distance(shape: Shape, points: Floats, limit: float) -> Floats:
    """Return each voxel's distance from a curve, `inf` beyond `limit`.

    `points` (N, 3) sample the curve, half a voxel apart or closer.
    """
    distance = np.full(shape, inf)
    for centre in points:
        box = _box(shape, as_point(centre), (limit, limit, limit))
        parts = [
            (np.arange(part.start, part.stop) - middle) ** 2
            for part, middle in zip(box, centre, strict=True)
        ]
        squares = parts[0][:, None, None] + parts[1][None, :, None] + parts[2]
        np.minimum(distance[box], squares, out=distance[box])
    distance[distance > limit**2] = inf
    result: Floats = np.sqrt(distance)
    return result


def coverage(distance: Floats, radius: float) -> Floats:
    """Return the share of each voxel within `radius` of a curve or point, to first order.

    The boundary counts as a plane through the voxel, so the share falls from 1 to 0 over one voxel.
    """
    share: Floats = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return share


def resample(points: Floats, step: float) -> Floats:
    """Return points (N, 3) at equal steps along a polyline, both of its ends among them."""
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.linspace(0.0, along[-1], max(2, ceil(along[-1] / step) + 1))
    return np.stack([np.interp(places, along, points[:, axis]) for axis in range(3)], axis=1)


def _box(shape: Shape, centre: Point, radii: Point) -> Box:
    depth, height, width = (
        slice(0, size)
        if radius == inf
        else slice(max(0, floor(middle - radius)), max(0, min(size, ceil(middle + radius) + 1)))
        for size, middle, radius in zip(shape, centre, radii, strict=True)
    )
    return depth, height, width


def wandering_curve(
    shape: Shape, rng: np.random.Generator, *, rim: float, num_bends: int
) -> Floats:
    """Return points (N, 3) from one end of W to the other, at least `rim` from the four sides."""
    knots = np.linspace(0.0, shape[2] - 1.0, num_bends + 2)
    sides = [
        CubicSpline(knots, rng.uniform(rim, size - 1 - rim, len(knots)), bc_type="natural")
        for size in shape[:2]
    ]
    along = np.linspace(0.0, shape[2] - 1.0, 4 * shape[2])
    points = np.stack(
        [
            np.clip(side(along), rim, size - 1 - rim)
            for side, size in zip(sides, shape[:2], strict=True)
        ]
        + [along],
        axis=1,
    )
    return resample(points, STEP)
