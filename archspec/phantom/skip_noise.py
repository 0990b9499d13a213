"""Skip noise: round and long organs under strong speckle, which a skip should not let through.

Both kinds have the same volume, brightness and speckle; only their shape as a whole tells them
apart. The speckle is a factor: grains of about two voxels that say nothing.

Legend: D, H, W are the volume's axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.fields import speckle
from archspec.phantom.painting import Floats, Shape
from archspec.phantom.task import Marks, Task, Volume
from blocks.base import SpecError

_ROUND_RADIUS = 7.5
_LONG_RADII = (12.5, 5.8)  # along and across; 12.5 x 5.8^2 = 7.5^3
_OFFSET = 9.0
_MAX_SHIFT = 1.0
_TISSUE, _ORGAN = 1.0, 1.4
_GRAIN = 0.6
_MOST_DEVIATIONS = 2.5  # beyond, the factor is cut off: files hold values up to 32

# Organs reach 18 of 24 voxels from the middle in any direction.
_LIMITS = AugmentationLimits(rotation=30.0, scaling=(0.85, 1.4))


@dataclass(frozen=True, kw_only=True)
class SkipNoiseTask(Task):
    """Describe the task.

    The speckle multiplies the image by exp(`amplitude` g) with g of deviation 1; the organs are
    brighter than tissue by exp(0.34). Erasing paints both kinds round.
    """

    noise: float = 0.0
    amplitude: float = 0.5

    name: ClassVar[str] = "skip-noise"
    summary: ClassVar[str] = "a round and a long organ under strong speckle"
    labels: ClassVar[Mapping[str, int]] = {"background": 0, "round": 1, "long": 2}
    decided: ClassVar[tuple[str, ...]] = ("round", "long")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"either_organ": decided}
    local_radius: ClassVar[int] = 2
    knob: ClassVar[str] = "speckle amplitude"
    levels: ClassVar[tuple[str, ...]] = ("0.25", "0.5", "1", "1.5")
    shape: ClassVar[Shape] = (48, 48, 48)
    limits: ClassVar[AugmentationLimits] = _LIMITS

    def __post_init__(self) -> None:
        if not 0.0 <= self.amplitude <= 1.5:
            raise SpecError(
                f"must lie in 0..1.5, got {self.amplitude}",
                field="amplitude",
                suggestion="use e.g. 0.5",
            )
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(amplitude=float(level))

    def decide(self, evidence: Marks) -> dict[int, str]:
        """Apply the rule: an organ is long if its longest axis is over 1.5 times its shortest."""
        answers = {}
        for mark in (1, 2):
            places = np.argwhere(evidence == mark)
            variances = np.linalg.eigvalsh(np.cov(places.T))
            answers[mark] = "long" if variances[-1] > 1.5**2 * variances[0] else "round"
        return answers

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case: a round and a long organ on opposite sides of the middle."""
        middle = np.subtract(self.shape, 1) / 2 + rng.uniform(-_MAX_SHIFT, _MAX_SHIFT, 3)
        apart = _direction(rng)
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        evidence: Marks = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        kinds = ("long", "round") if rng.random() < 0.5 else ("round", "long")
        for mark, side, kind in zip((1, 2), (-1.0, 1.0), kinds, strict=True):
            across = np.cross(apart, _direction(rng))
            along = across / np.linalg.norm(across)
            offset = self._offsets(middle + side * _OFFSET * apart)
            inside = _long(offset, along) if kind == "long" else _round(offset)
            label[inside] = self.labels[kind]
            evidence[inside] = mark
            clean[_round(offset) if self.control == "erased" else inside] = _ORGAN
        grains = np.clip(speckle(self.shape, _GRAIN, rng), -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        factor = np.exp(self.amplitude * grains - self.amplitude**2 / 2)
        return self.finish(clean, label, evidence, rng, factor=factor)

    def _offsets(self, centre: Floats) -> Floats:
        """Return each voxel's way (3, D, H, W) from a centre."""
        grid = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij")).astype(float)
        offsets: Floats = grid - centre[:, None, None, None]
        return offsets


def _direction(rng: np.random.Generator) -> Floats:
    vector = rng.normal(size=3)
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def _round(offset: Floats) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.einsum("idhw,idhw->dhw", offset, offset) <= _ROUND_RADIUS**2
    return inside


def _long(offset: Floats, along: Floats) -> NDArray[np.bool_]:
    """Mark an ellipsoid of revolution around the unit vector `along`."""
    length, width = _LONG_RADII
    forward = np.einsum("i,idhw->dhw", along, offset)
    beside = np.einsum("idhw,idhw->dhw", offset, offset) - forward**2
    inside: NDArray[np.bool_] = (forward / length) ** 2 + beside / width**2 <= 1.0
    return inside
