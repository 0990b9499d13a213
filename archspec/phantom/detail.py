"""Detail: tubes and lesions as thin as a voxel, which a decoder that predicts coarsely must miss.

Every label follows from its neighbourhood, so there is no far evidence: what counts is resolution.
A voxel at a boundary shows the mixture that it covers; its label says where its centre lies.

Legend: D, H, W are the volume's axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.curves import wandering_curve
from archspec.phantom.painting import Floats, Shape, coverage, curve_distance
from archspec.phantom.task import Task, Volume
from blocks.base import SpecError

_SHAPE: Shape = (32, 64, 64)
_NUM_TUBES, _NUM_LESIONS = 4, 16
_NUM_PLACES = 400  # tried for the lesions; thick structures leave few free
_GAP = 2.0  # voxels of tissue between structures
_RIM = 3.0
_TISSUE, _TUBE, _LESION = 1.0, 1.9, 1.7
_SIZE_RANGE = (0.95, 1.05)


@dataclass(frozen=True, kw_only=True)
class DetailTask(Task):
    """Describe the task; `radius` in voxels is that of the tubes and of the lesions."""

    blur: float = 0.4
    bias: float = 0.1
    radius: float = 1.5

    name: ClassVar[str] = "detail"
    summary: ClassVar[str] = "tubes and lesions a few voxels thin; score surface Dice too"
    labels: ClassVar[Mapping[str, int]] = {"background": 0, "tube": 1, "lesion": 2}
    knob: ClassVar[str] = "radius (voxels)"
    levels: ClassVar[tuple[str, ...]] = ("1", "1.5", "2", "3")

    def __post_init__(self) -> None:
        if not 1.0 <= self.radius <= 3.0:
            raise SpecError(f"radius: must lie in 1..3 voxels, got {self.radius}; use e.g. 1.5")
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(radius=float(level))

    @property
    def level(self) -> str | None:
        """Return the radius, if it is a level's."""
        return next((level for level in self.levels if float(level) == self.radius), None)

    @property
    def shape(self) -> Shape:
        """Return the grid (D, H, W)."""
        return _SHAPE

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case: tubes from end to end of W, then lesions where there is room."""
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        taken = np.zeros(self.shape, np.bool_)
        for _ in range(_NUM_TUBES):
            curve = wandering_curve(self.shape, rng, rim=_RIM + self.radius, num_bends=3)
            self._add(curve, "tube", _TUBE, rng, label, clean, taken)
        margin = _RIM + self.radius
        places = rng.uniform(margin, np.subtract(self.shape, 1) - margin, (_NUM_PLACES, 3))
        num_lesions = 0
        for place in places:
            free = not taken[tuple(np.rint(place).astype(int))]
            if free and num_lesions < _NUM_LESIONS:
                self._add(place[None], "lesion", _LESION, rng, label, clean, taken)
                num_lesions += 1
        return self.finish(clean, label, np.zeros(self.shape, np.uint8), rng)

    def _add(
        self,
        points: Floats,
        name: str,
        intensity: float,
        rng: np.random.Generator,
        label: NDArray[np.uint8],
        clean: Floats,
        taken: NDArray[np.bool_],
    ) -> None:
        """Paint one structure around its points, and take the room that others must not enter."""
        radius = self.radius * rng.uniform(*_SIZE_RANGE)
        # A lesion's centre has to keep clear by both radii and the gap.
        away = curve_distance(self.shape, points, 2 * self.radius + _GAP)
        share = coverage(away, radius)
        np.maximum(clean, _TISSUE + share * (intensity - _TISSUE), out=clean)
        label[(away <= radius) & (label == 0)] = self.labels[name]
        taken |= np.isfinite(away)
