"""Reach: which of two mirror-image organs lies on the side of a far landmark?

Everything that a small neighbourhood can show is easy: the twins, the landmark and the dark midline
column have clear contrasts. Which twin lies on the landmark's side can be learnt only by a network
that sees `distance` voxels along W; any other sits at the coin flip (0.5) on the two twin classes.

Legend: D, H, W are the volume's axes; left and right are the two ends of H.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.painting import Point, Shape, Side, as_point, coin, ellipsoid
from archspec.phantom.task import Marks, Task, Volume
from archspec.phantom.twins import Twins, mark_twins, nearest_twin
from blocks.base import SpecError

MIN_DISTANCE = 16
MAX_DISTANCE = 144
HOST_VOLUME: Shape = (16, 32, 192)

_HEIGHT = 32
_MIN_DEPTH = 16
_END_MARGIN = 24  # beside the landmark and beside the twins, in all: radius + shift + rim
_FIXED_MARGIN = 36  # the same in a fixed volume, which leaves more room for shifts and growth
_LATERAL_OFFSET = 8.0
_COLUMN_RADIUS = 2.0
_TWIN_RADII: Point = (4.5, 4.5, 4.5)
_LANDMARK_RADII: Point = (4.5, 4.5, 4.5)
_MAX_SHIFT: Point = (1.5, 1.5, 2.0)
_HOST_SHIFT: Point = (1.5, 1.5, 7.0)
_SIZE_RANGE = (0.9, 1.1)

# Tissue is not 0: nnU-Net crops zero borders away and marks zero voxels as outside.
_TISSUE, _COLUMN, _TWIN, _LANDMARK = 1.0, 0.4, 1.6, 2.2

# Organs reach 14.5 of the 16 voxels beside the middle along H: growing them by 1 / 0.92 leaves them
# whole, turning a volume of 192 voxels by more than half a degree does not.
_HOST_LIMITS = AugmentationLimits(rotation=0.0, scaling=(0.92, 1.25))


@dataclass(frozen=True)
class Scene:
    """Hold what differs between cases, in voxels; nothing but `landmark_side` decides a label."""

    landmark_side: Side
    landmark_end: Side
    centre: Point
    twin_radii: Point
    landmark_radii: Point


@dataclass(frozen=True, kw_only=True)
class ReachTask(Task):
    """Describe the task; the volume grows with the distance, unless `volume` fixes it.

    `distance` is in voxels along W between the landmark's centre and the twins' centres, `volume`
    the grid (D, H, W) in voxels. The levels have the volume (16, 32, 192), so that only the
    distance differs between them.

    Train on the whole volume with foreground oversampling 0: nnU-Net's default centres a third of
    the patches on a labelled voxel, which moves the landmark out of many of them. A task with a
    fixed volume says so in `limits`.
    """

    distance: int = 20
    volume: Shape | None = None

    name: ClassVar[str] = "reach"
    summary: ClassVar[str] = "which twin is on the side of a landmark far along W"
    labels: ClassVar[Mapping[str, int]] = {
        "background": 0,
        "organ": 1,
        "twin_same": 2,
        "twin_other": 3,
    }
    twins: ClassVar[tuple[str, ...]] = ("twin_same", "twin_other")
    decided: ClassVar[tuple[str, ...]] = twins
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"either_twin": twins}
    knob: ClassVar[str] = "distance (voxels)"
    levels: ClassVar[tuple[str, ...]] = ("24", "48", "96", "144")

    def __post_init__(self) -> None:
        if not MIN_DISTANCE <= self.distance <= MAX_DISTANCE:
            raise SpecError(
                f"must lie in {MIN_DISTANCE}..{MAX_DISTANCE} voxels, got {self.distance}",
                field="distance",
                suggestion="use e.g. 20",
            )
        if self.volume is not None:
            least = (_MIN_DEPTH, _HEIGHT, self.distance + _FIXED_MARGIN)
            if any(size < low for size, low in zip(self.volume, least, strict=True)):
                raise SpecError(
                    f"must be at least {least} at distance {self.distance}, got {self.volume}",
                    field="volume",
                    suggestion=f"use e.g. {HOST_VOLUME}",
                )
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(distance=int(level), volume=HOST_VOLUME)

    @property
    def limits(self) -> AugmentationLimits | None:
        """Return how far augmentation may go in a fixed volume, which fills the patch."""
        return None if self.volume is None else _HOST_LIMITS

    @property
    def shape(self) -> Shape:
        """Return the grid (D, H, W): `volume`, else D and H divide by 8, W by 16.

        W / D stays at most 3: above it nnU-Net rotates by 180 degrees in the plane (H, W), which
        would turn most of a long volume out of the patch.
        """
        if self.volume is not None:
            return self.volume
        width = 16 * ceil((self.distance + _END_MARGIN) / 16)
        return max(_MIN_DEPTH, 8 * ceil(width / 24)), _HEIGHT, width

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw and render one case."""
        return self.render(self.draw(rng), rng)

    def decide(self, evidence: Marks) -> dict[int, str]:
        """Apply the rule: the twin nearer to the landmark is on its side."""
        return nearest_twin(evidence)

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw a case; the landmark's side is independent of all the rest."""
        middle = [(size - 1) / 2 for size in self.shape]
        shift = rng.uniform(-1.0, 1.0, 3) * (_MAX_SHIFT if self.volume is None else _HOST_SHIFT)
        return Scene(
            landmark_side=coin(rng),
            landmark_end=coin(rng),
            centre=as_point(middle + shift),
            twin_radii=as_point(rng.uniform(*_SIZE_RANGE, 3) * _TWIN_RADII),
            landmark_radii=as_point(rng.uniform(*_SIZE_RANGE, 3) * _LANDMARK_RADII),
        )

    def render(self, scene: Scene, rng: np.random.Generator) -> Volume:
        """Paint the scene; `rng` draws the noise only."""
        depth, height, width = scene.centre
        landmark_width = width + scene.landmark_end * self.distance / 2
        twin_width = width - scene.landmark_end * self.distance / 2
        same = height + scene.landmark_side * _LATERAL_OFFSET
        other = height - scene.landmark_side * _LATERAL_OFFSET

        column = ellipsoid(self.shape, scene.centre, (_COLUMN_RADIUS, _COLUMN_RADIUS, inf))
        organs = Twins(
            ellipsoid(self.shape, (depth, same, landmark_width), scene.landmark_radii),
            ellipsoid(self.shape, (depth, same, twin_width), scene.twin_radii),
            ellipsoid(self.shape, (depth, other, twin_width), scene.twin_radii),
        )
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        column.paint(clean, _COLUMN)
        if self.control != "erased":
            organs.landmark.paint(clean, _LANDMARK)
        for region in (organs.same, organs.other):
            region.paint(clean, _TWIN)
        for name, region in zip(("organ", *self.twins), organs, strict=True):
            region.paint(label, self.labels[name])
        evidence = mark_twins(self.shape, organs, scene.landmark_side)
        return self.finish(clean, label, evidence, rng)
