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
from scipy.spatial import KDTree

from archspec.phantom.painting import Floats, Shape, coverage, curve_distance, wandering_curve
from archspec.phantom.task import Task, Volume
from blocks.base import SpecError

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
    shape: ClassVar[Shape] = (32, 64, 64)

    def __post_init__(self) -> None:
        if not 1.0 <= self.radius <= 3.0:
            raise SpecError(
                f"must lie in 1..3 voxels, got {self.radius}",
                field="radius",
                suggestion="use e.g. 1.5",
            )
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(radius=float(level))

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case: tubes from end to end of W, then lesions where there is room."""
        radius = self.radius * rng.uniform(*_SIZE_RANGE)
        margin = _RIM + self.radius
        tubes = np.concatenate(
            [wandering_curve(self.shape, rng, rim=margin, num_bends=3) for _ in range(_NUM_TUBES)]
        )
        lesions = self._places(tubes, rng, margin)
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        for name, points, intensity in (("tube", tubes, _TUBE), ("lesion", lesions, _LESION)):
            away = curve_distance(self.shape, points, radius + 0.5)
            clean += coverage(away, radius) * (intensity - clean)
            label[away <= radius] = self.labels[name]
        return self.finish(clean, label, np.zeros(self.shape, np.uint8), rng)

    def _places(self, tubes: Floats, rng: np.random.Generator, margin: float) -> Floats:
        """Return the lesions' centres (N, 3), clear of the tubes and of each other."""
        apart = 2 * self.radius + _GAP
        places = rng.uniform(margin, np.subtract(self.shape, 1) - margin, (_NUM_PLACES, 3))
        from_tubes, _ = KDTree(tubes).query(places)
        chosen: list[Floats] = []
        for place in places[from_tubes >= apart]:
            if all(np.linalg.norm(place - other) >= apart for other in chosen):
                chosen.append(place)
        return np.array(chosen[:_NUM_LESIONS])
