"""Reach: which of two mirror-image organs lies on the side of a far landmark?

Everything that a small neighbourhood can show is easy: the twins, the landmark and the dark midline
column have clear contrasts. Which twin lies on the landmark's side can be learnt only by a network
that sees `distance` voxels along W; any other sits at the coin flip (0.5) on the two twin classes.

Legend: D, H, W are the volume's axes; left and right are the two ends of H.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blocks.base import SpecError

Point = tuple[float, float, float]
Side = Literal[-1, 1]

MIN_DISTANCE = 16
MAX_DISTANCE = 136

_HEIGHT = 32
_MIN_DEPTH = 16
_END_MARGIN = 24  # beside the landmark and beside the twins, in all: radius + shift + rim
_LATERAL_OFFSET = 8.0
_COLUMN_RADIUS = 2.0
_TWIN_RADII: Point = (4.5, 4.5, 4.5)
_LANDMARK_RADII: Point = (4.5, 4.5, 4.5)
_MAX_SHIFT: Point = (1.5, 1.5, 2.0)
_SIZE_RANGE = (0.9, 1.1)

# Tissue is not 0: nnU-Net crops zero borders away and marks zero voxels as outside.
_TISSUE, _COLUMN, _TWIN, _LANDMARK = 1.0, 0.4, 1.6, 2.2


@dataclass(frozen=True)
class Scene:
    """Hold what differs between cases, in voxels; nothing but `landmark_side` decides a label."""

    landmark_side: Side
    landmark_end: Side
    centre: Point
    twin_radii: Point
    landmark_radii: Point


class Volume(NamedTuple):
    """Hold one case: image (D, H, W) float32 and label (D, H, W) uint8."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ReachTask:
    """Describe the task; the volume grows with the distance.

    `distance` is in voxels along W between the landmark's centre and the twins' centres, `spacing`
    in mm (D, H, W), `noise` the standard deviation in units where tissue is 1 and a twin 1.6,
    `blur` the standard deviation in voxels of the partial-volume blur.

    Train on the whole volume with foreground oversampling 0: nnU-Net's default centres a third of
    the patches on a labelled voxel, which moves the landmark out of many of them.

    Raises: SpecError for a value out of range.
    """

    distance: int = 20
    spacing: Point = (1.0, 1.0, 1.0)
    noise: float = 0.1
    blur: float = 0.7

    name: ClassVar[str] = "reach"
    labels: ClassVar[Mapping[str, int]] = {
        "background": 0,
        "organ": 1,
        "twin_same": 2,
        "twin_other": 3,
    }
    twins: ClassVar[tuple[str, ...]] = ("twin_same", "twin_other")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"either_twin": twins}

    def __post_init__(self) -> None:
        if not MIN_DISTANCE <= self.distance <= MAX_DISTANCE:
            raise SpecError(
                f"distance: must lie in {MIN_DISTANCE}..{MAX_DISTANCE} voxels, "
                f"got {self.distance}; use e.g. 20"
            )
        if len(self.spacing) != 3 or not all(0.0 < size < float("inf") for size in self.spacing):
            raise SpecError(
                f"spacing: must be three positive sizes in mm (D, H, W), got {self.spacing}; "
                "use e.g. (1.0, 1.0, 1.0)"
            )
        if not 0.0 <= self.noise <= 0.3:
            raise SpecError(
                f"noise: must lie in 0..0.3 (half the contrast of a twin), got {self.noise}; "
                "use e.g. 0.1"
            )
        if not 0.0 <= self.blur <= 2.0:
            raise SpecError(
                f"blur: must lie in 0..2 voxels, since a wider blur hides the column, "
                f"got {self.blur}; use e.g. 0.7"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the grid (D, H, W); D and H divide by 8, W by 16.

        W / D stays at most 3: above it nnU-Net rotates by 180 degrees in the plane (H, W), which
        would turn most of a long volume out of the patch.
        """
        width = 16 * ceil((self.distance + _END_MARGIN) / 16)
        return max(_MIN_DEPTH, 8 * ceil(width / 24)), _HEIGHT, width

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw a case; the landmark's side is independent of all the rest."""
        middle = [(size - 1) / 2 for size in self.shape]
        shift = rng.uniform(-1.0, 1.0, 3) * _MAX_SHIFT
        return Scene(
            landmark_side=_coin(rng),
            landmark_end=_coin(rng),
            centre=_point(middle + shift),
            twin_radii=_point(rng.uniform(*_SIZE_RANGE, 3) * _TWIN_RADII),
            landmark_radii=_point(rng.uniform(*_SIZE_RANGE, 3) * _LANDMARK_RADII),
        )

    def render(self, scene: Scene, rng: np.random.Generator) -> Volume:
        """Paint the scene; `rng` draws the noise only."""
        depth, height, width = scene.centre
        landmark_width = width + scene.landmark_end * self.distance / 2
        twin_width = width - scene.landmark_end * self.distance / 2
        same = height + scene.landmark_side * _LATERAL_OFFSET
        other = height - scene.landmark_side * _LATERAL_OFFSET

        label = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        clean[self._inside((depth, height, width), (_COLUMN_RADIUS, _COLUMN_RADIUS, np.inf))] = (
            _COLUMN
        )
        for name, centre, radii, intensity in (
            ("organ", (depth, same, landmark_width), scene.landmark_radii, _LANDMARK),
            ("twin_same", (depth, same, twin_width), scene.twin_radii, _TWIN),
            ("twin_other", (depth, other, twin_width), scene.twin_radii, _TWIN),
        ):
            inside = self._inside(centre, radii)
            clean[inside] = intensity
            label[inside] = self.labels[name]
        image = ndimage.gaussian_filter(clean, self.blur, mode="nearest")
        image += rng.normal(0.0, self.noise, self.shape)
        return Volume(image.astype(np.float32), label)

    def _inside(self, centre: Point, radii: Point) -> NDArray[np.bool_]:
        """Mark the voxels of an ellipsoid; an infinite radius makes it a column along that axis."""
        squares = [
            ((np.arange(size) - middle) / radius) ** 2
            for size, middle, radius in zip(self.shape, centre, radii, strict=True)
        ]
        inside: NDArray[np.bool_] = (
            squares[0][:, None, None] + squares[1][None, :, None] + squares[2] <= 1.0
        )
        return inside


def _coin(rng: np.random.Generator) -> Side:
    return 1 if rng.random() < 0.5 else -1


def _point(values: NDArray[np.float64]) -> Point:
    depth, height, width = (float(value) for value in values)
    return depth, height, width
