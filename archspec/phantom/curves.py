"""Draw smooth random curves through a volume."""

import numpy as np
from scipy.interpolate import CubicSpline

from archspec.phantom.painting import Floats, Shape, resample

STEP = 0.4
"""Voxels between the points of a curve: near enough for distances from it to be right to 0.02."""


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
