"""Mixed CT: a lobed organ, a vessel through the volume and lesions of low contrast in the organ.

A plain segmentation task for demonstrations and for counting training cases; every label follows
from its surroundings within about an organ's size.

Legend: D, H, W are the volume's axes. Intensities are Hounsfield units / 1000 + 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.painting import (
    Floats,
    Shape,
    as_point,
    coverage,
    curve_distance,
    ellipsoid,
    wandering_curve,
)
from archspec.phantom.task import Task, Volume, one_of

Difficulty = Literal["easy", "medium", "hard"]
_DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)

_MAX_SHIFT = (3.0, 5.0, 5.0)
_LOBES = ((12.0, 16.0, 15.0), (9.0, 11.0, 13.0))
_LOBE_OFFSET = (5.0, 8.0, 8.0)
_SIZE_RANGE = (0.9, 1.1)
_NUM_LESIONS = (1, 4)
_LESION_SIZES = (3.0, 4.5)
_FAT, _TISSUE, _ORGAN, _VESSEL = 0.9, 1.03, 1.11, 1.22
_LESION: Mapping[str, float] = {"easy": 1.02, "medium": 1.05, "hard": 1.08}
_VESSEL_RADIUS: Mapping[str, float] = {"easy": 3.0, "medium": 2.2, "hard": 1.5}
_NOISE: Mapping[str, float] = {"easy": 0.01, "medium": 0.02, "hard": 0.03}


@dataclass(frozen=True, kw_only=True)
class MixedCTTask(Task):
    """Describe the task; harder lesions are fainter, vessels thinner, images noisier."""

    noise: float = _NOISE["medium"]
    difficulty: Difficulty = "medium"

    name: ClassVar[str] = "mixed-ct"
    summary: ClassVar[str] = "organ, vessel and lesions in one CT-like channel"
    labels: ClassVar[Mapping[str, int]] = {"background": 0, "organ": 1, "vessel": 2, "lesion": 3}
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"organ_and_lesion": ("organ", "lesion")}
    knob: ClassVar[str] = "difficulty"
    levels: ClassVar[tuple[str, ...]] = _DIFFICULTIES
    shape: ClassVar[Shape] = (48, 64, 64)

    def __post_init__(self) -> None:
        one_of("difficulty", self.difficulty, _DIFFICULTIES)
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(difficulty=one_of("difficulty", level, _DIFFICULTIES), noise=_NOISE[level])

    @property
    def channels(self) -> tuple[str, ...]:
        """Return CT: nnU-Net then clips and scales by the intensities of the whole dataset."""
        return ("CT",)

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case."""
        middle = np.subtract(self.shape, 1) / 2
        centre = middle + rng.uniform(-1.0, 1.0, 3) * _MAX_SHIFT
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _FAT)
        body = as_point(np.array(self.shape) * rng.uniform(0.46, 0.6, 3))
        ellipsoid(self.shape, as_point(middle), body).paint(clean, _TISSUE)

        organ = np.zeros(self.shape, np.bool_)
        sides = rng.choice([-1.0, 1.0], 3)
        for radii, offset in zip(_LOBES, (0.0, 1.0), strict=True):
            sized = as_point(rng.uniform(*_SIZE_RANGE, 3) * radii)
            lobe = as_point(centre + offset * sides * _LOBE_OFFSET)
            ellipsoid(self.shape, lobe, sized).paint(organ, True)
        clean[organ] = _ORGAN
        label[organ] = self.labels["organ"]
        self._add_lesions(centre, rng, organ, label, clean)

        radius = _VESSEL_RADIUS[self.difficulty]
        curve = wandering_curve(self.shape, rng, rim=4.0 + radius, num_bends=2)
        away = curve_distance(self.shape, curve, radius + 0.5)
        share = coverage(away, radius)
        clean += share * (_VESSEL - clean)
        label[away <= radius] = self.labels["vessel"]
        return self.finish(clean, label, np.zeros(self.shape, np.uint8), rng)

    def _add_lesions(
        self,
        centre: Floats,
        rng: np.random.Generator,
        organ: NDArray[np.bool_],
        label: NDArray[np.uint8],
        clean: Floats,
    ) -> None:
        """Paint balls within the main lobe, cut off where the organ ends."""
        for _ in range(int(rng.integers(*_NUM_LESIONS))):
            place = as_point(centre + rng.uniform(-0.5, 0.5, 3) * _LOBES[0])
            size = float(rng.uniform(*_LESION_SIZES))
            lesion = np.zeros(self.shape, np.bool_)
            ellipsoid(self.shape, place, (size, size, size)).paint(lesion, True)
            lesion &= organ
            clean[lesion] = _LESION[self.difficulty]
            label[lesion] = self.labels["lesion"]
