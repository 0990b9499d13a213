"""Mixed MRI: a nested tumour (core, oedema, enhancing rim) in four contrasts with a bias field.

A plain multi-channel task for demonstrations: which part a voxel belongs to shows only where the
contrasts are read together.

Legend: D, H, W are the volume's axes; channels are T1, T1ce, T2, FLAIR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from archspec.phantom.fields import bias_field, rician, smooth_field
from archspec.phantom.painting import Floats, Shape, as_point, ellipsoid
from archspec.phantom.task import Task, Volume, one_of

Difficulty = Literal["easy", "medium", "hard"]
_DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)

_MAX_SHIFT = 6.0
_RADII = (10.0, 14.0)
_PARTS = (("ed", 1.0), ("et", 0.65), ("ncr", 0.42))  # label and outer radius, from outside in
_UNEVENNESS = 0.2
_VENTRICLE = (9.0, 3.0, 3.0)
_VENTRICLE_OFFSET = 5.0
_INTENSITIES: Mapping[str, tuple[float, float, float, float]] = {
    "brain": (1.0, 1.0, 1.0, 1.0),
    "ventricle": (0.5, 0.5, 1.9, 0.5),
    "ed": (0.8, 0.85, 1.6, 1.7),
    "et": (0.85, 1.7, 1.3, 1.4),
    "ncr": (0.6, 0.6, 1.8, 0.9),
}
_BIAS: Mapping[str, float] = {"easy": 0.15, "medium": 0.3, "hard": 0.6}
_NOISE: Mapping[str, float] = {"easy": 0.03, "medium": 0.06, "hard": 0.12}


@dataclass(frozen=True, kw_only=True)
class MixedMRITask(Task):
    """Describe the task; noise is Rician, and each channel has a bias field of its own."""

    noise: float = _NOISE["medium"]
    bias: float = _BIAS["medium"]
    difficulty: Difficulty = "medium"

    name: ClassVar[str] = "mixed-mri"
    summary: ClassVar[str] = "nested tumour in four MR-like channels"
    labels: ClassVar[Mapping[str, int]] = {"background": 0, "ncr": 1, "ed": 2, "et": 3}
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "whole": ("ncr", "ed", "et"),
        "core": ("ncr", "et"),
    }
    knob: ClassVar[str] = "difficulty"
    levels: ClassVar[tuple[str, ...]] = _DIFFICULTIES
    shape: ClassVar[Shape] = (48, 48, 48)

    def __post_init__(self) -> None:
        one_of("difficulty", self.difficulty, _DIFFICULTIES)
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(
            difficulty=one_of("difficulty", level, _DIFFICULTIES),
            noise=_NOISE[level],
            bias=_BIAS[level],
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the four contrasts."""
        return ("T1", "T1ce", "T2", "FLAIR")

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case."""
        middle = np.subtract(self.shape, 1) / 2
        centre = middle + rng.uniform(-_MAX_SHIFT, _MAX_SHIFT, 3)
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        tissue = np.full(self.shape, list(_INTENSITIES).index("brain"), np.uint8)
        for side in (-1.0, 1.0):
            place = as_point(middle + side * np.array([0.0, 0.0, _VENTRICLE_OFFSET]))
            ventricle = ellipsoid(self.shape, place, _VENTRICLE)
            ventricle.paint(tissue, list(_INTENSITIES).index("ventricle"))
        depth = self._depth(centre, rng)
        for name, outer in _PARTS:
            label[depth <= outer] = self.labels[name]
            tissue[depth <= outer] = list(_INTENSITIES).index(name)

        table = np.array(list(_INTENSITIES.values()))
        channels = []
        for intensities in table.T:
            clean = ndimage.gaussian_filter(intensities[tissue], self.blur, mode="nearest")
            shaded = clean * bias_field(self.shape, self.bias, rng)
            channels.append(rician(shaded, self.noise, rng))
        image = np.stack(channels).astype(np.float32)
        return Volume(image, label, np.zeros(self.shape, np.uint8))

    def _depth(self, centre: Floats, rng: np.random.Generator) -> Floats:
        """Return each voxel's distance from the tumour's centre, its uneven surface being 1."""
        radii = rng.uniform(*_RADII, 3)
        squares = [
            ((np.arange(size) - at) / radius) ** 2
            for size, at, radius in zip(self.shape, centre, radii, strict=True)
        ]
        total = squares[0][:, None, None] + squares[1][None, :, None] + squares[2]
        depth: Floats = np.sqrt(total) * (1.0 + _UNEVENNESS * smooth_field(self.shape, rng))
        return depth
