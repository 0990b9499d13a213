"""Axis: which twin is on the side of the landmark that lies along one given direction?

Three landmarks look alike and lie equally far from the twins: one along D, one along W, one on the
diagonal between them. Each is on its own random side along H; only the level's landmark decides.
The three levels share every image of a seed, so nothing but the direction of the relation differs.

Legend: D, H, W are the volume's axes; the sides are the two ends of H.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.painting import Point, Shape, Side, as_point, coin, ellipsoid
from archspec.phantom.task import Marks, Task, Volume, one_of
from archspec.phantom.twins import Twins, mark_twins, nearest_twin

Direction = Literal["depth", "width", "diagonal"]
_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_DISTANCE = 22.0
_LATERAL_OFFSET = 6.5
_COLUMN_RADIUS = 2.0
_RADII: Point = (4.0, 4.0, 4.0)
_SIZE_RANGE = (0.9, 1.1)
_MAX_SHIFT: Point = (1.5, 1.0, 1.5)
_TISSUE, _COLUMN, _TWIN, _LANDMARK = 1.0, 0.4, 1.6, 2.2

# Landmarks reach 28 of 32 voxels along D and W, 12 of 16 along H. A larger angle would also turn
# one direction of the relation into another.
_LIMITS = AugmentationLimits(rotation=4.0, scaling=(0.95, 1.25))


@dataclass(frozen=True)
class Scene:
    """Hold what differs between cases, in voxels; side and end for each direction."""

    sides: tuple[Side, Side, Side]
    ends: tuple[Side, Side, Side]
    diagonal: Side
    centre: Point
    twin_radii: Point
    landmark_radii: Point


@dataclass(frozen=True, kw_only=True)
class AxisTask(Task):
    """Describe the task; `direction` says which of the three landmarks decides."""

    direction: Direction = "width"

    name: ClassVar[str] = "axis"
    summary: ClassVar[str] = "reach along depth, width or their diagonal; the others mislead"
    labels: ClassVar[Mapping[str, int]] = {
        "background": 0,
        "organ": 1,
        "twin_same": 2,
        "twin_other": 3,
    }
    decided: ClassVar[tuple[str, ...]] = ("twin_same", "twin_other")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"either_twin": decided}
    knob: ClassVar[str] = "direction"
    levels: ClassVar[tuple[str, ...]] = _DIRECTIONS
    shape: ClassVar[Shape] = (64, 32, 64)  # D and W alike, so that no direction is shorter
    limits: ClassVar[AugmentationLimits] = _LIMITS

    def __post_init__(self) -> None:
        one_of("direction", self.direction, _DIRECTIONS)
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(direction=one_of("direction", level, _DIRECTIONS))

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw and render one case."""
        return self.render(self.draw(rng), rng)

    def decide(self, evidence: Marks) -> dict[int, str]:
        """Apply the rule: the twin nearer to the deciding landmark is on its side."""
        return nearest_twin(evidence)

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw a case; the three landmarks' sides are independent of each other and of the rest."""
        middle = [(size - 1) / 2 for size in self.shape]
        shift = rng.uniform(-1.0, 1.0, 3) * _MAX_SHIFT
        return Scene(
            sides=(coin(rng), coin(rng), coin(rng)),
            ends=(coin(rng), coin(rng), coin(rng)),
            diagonal=coin(rng),
            centre=as_point(middle + shift),
            twin_radii=as_point(rng.uniform(*_SIZE_RANGE, 3) * _RADII),
            landmark_radii=as_point(rng.uniform(*_SIZE_RANGE, 3) * _RADII),
        )

    def render(self, scene: Scene, rng: np.random.Generator) -> Volume:
        """Paint the scene; `rng` draws the noise only."""
        depth, height, width = scene.centre
        decisive = self.levels.index(self.direction)
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        # A sheet, not a column: it shows the middle of H at every place of the plane (D, W).
        ellipsoid(self.shape, scene.centre, (inf, _COLUMN_RADIUS / 2, inf)).paint(clean, _COLUMN)
        landmarks = [
            ellipsoid(
                self.shape,
                (depth + step[0], height + side * _LATERAL_OFFSET, width + step[1]),
                scene.landmark_radii,
            )
            for step, side in zip(_steps(scene), scene.sides, strict=True)
        ]
        for index, region in enumerate(landmarks):
            region.paint(label, self.labels["organ"])
            if self.control != "erased" or index != decisive:
                region.paint(clean, _LANDMARK)
        side = scene.sides[decisive]
        organs = Twins(
            landmarks[decisive],
            *(
                ellipsoid(
                    self.shape, (depth, height + at * _LATERAL_OFFSET, width), scene.twin_radii
                )
                for at in (side, -side)
            ),
        )
        for name, region in (("twin_same", organs.same), ("twin_other", organs.other)):
            region.paint(clean, _TWIN)
            region.paint(label, self.labels[name])
        return self.finish(clean, label, mark_twins(self.shape, organs, side), rng)


def _steps(scene: Scene) -> list[tuple[float, float]]:
    """Return the way (D, W) from the twins to the landmarks along depth, width and diagonal."""
    by_depth, by_width, by_diagonal = (end * _DISTANCE for end in scene.ends)
    part = by_diagonal / sqrt(2)
    return [(by_depth, 0.0), (0.0, by_width), (part, scene.diagonal * part)]
