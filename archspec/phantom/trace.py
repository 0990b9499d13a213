"""Trace: which of several intertwined vessels of one calibre starts at the root marker?

The vessels wind around a common axis like the strands of a rope, by a random angle that makes every
place equally likely for every vessel once it has left the root. Only following a vessel back to the
root tells it from the decoys.

Legend: D, H, W are the volume's axes; the rope runs along W.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.painting import (
    STEP,
    Floats,
    Point,
    Shape,
    as_point,
    coin,
    coverage,
    curve_distance,
    ellipsoid,
    resample,
)
from archspec.phantom.task import Marks, Task, Volume
from archspec.phantom.twins import centroid
from blocks.base import SpecError

ROOT, FIRST_STRAND = 1, 2

_LENGTH = 76.0
_ROPE_RADIUS = 7.0
_ROOT_RADII: Point = (3.2, 3.2, 3.2)
_MAX_SHIFT: Point = (1.0, 1.0, 1.0)
_RATE_SPREAD = 0.15  # how much the rate of winding varies along the rope
_TISSUE, _VESSEL, _ROOT = 1.0, 1.8, 2.8

# The rope reaches 42 of 48 voxels beside the middle along W, 10 of 16 along D and H.
_LIMITS = AugmentationLimits(rotation=4.0, scaling=(0.94, 1.25))


@dataclass(frozen=True, kw_only=True)
class TraceTask(Task):
    """Describe the task.

    The vessels wind by `turns` - 1 to `turns` half turns either way; `decoys` do not start at the
    root; `radius` of all is in voxels.

    Raises: SpecError where the vessels would touch each other.
    """

    blur: float = 0.4
    turns: int = 2
    decoys: int = 1
    radius: float = 1.6

    name: ClassVar[str] = "trace"
    summary: ClassVar[str] = "which of two intertwined vessels starts at the root marker"
    labels: ClassVar[Mapping[str, int]] = {"background": 0, "vessel": 1, "decoy": 2, "root": 3}
    decided: ClassVar[tuple[str, ...]] = ("vessel", "decoy")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"either_vessel": decided}
    knob: ClassVar[str] = "half turns"
    levels: ClassVar[tuple[str, ...]] = ("1", "2", "4", "6")
    shape: ClassVar[Shape] = (32, 32, 96)
    limits: ClassVar[AugmentationLimits] = _LIMITS

    def __post_init__(self) -> None:
        if self.turns < 1 or self.decoys < 1 or not 1.0 <= self.radius <= 3.0:
            raise SpecError(
                f"must be at least 1, 1 and 1..3 voxels, got {self.turns}, {self.decoys}, "
                f"{self.radius}",
                field="turns, decoys, radius",
                suggestion="use e.g. 2, 1, 1.6",
            )
        gap = _clearance(self.turns, self.decoys + 1) - 2 * self.radius
        if gap < 1.0:
            raise SpecError(
                f"{self.decoys + 1} vessels of radius {self.radius} leave {max(gap, 0.0):.1f} "
                f"voxels between them at {self.turns} half turns, not 1",
                field="turns, decoys, radius",
                suggestion="lower one",
            )
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(turns=int(level))

    def decide(self, evidence: Marks) -> dict[int, str]:
        """Apply the rule: the vessel whose nearest voxel is nearest to the root starts there."""
        root = centroid(evidence, ROOT)
        away = {
            mark: float(np.linalg.norm(np.argwhere(evidence == mark) - root, axis=1).min())
            for mark in range(FIRST_STRAND, FIRST_STRAND + self.decoys + 1)
        }
        first = min(away, key=away.__getitem__)
        return {mark: "vessel" if mark == first else "decoy" for mark in away}

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case: the vessels, of which one at random gets the root."""
        num_strands = self.decoys + 1
        strands, root_end = self._draw_strands(num_strands, rng)
        rooted = int(rng.integers(num_strands))
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        evidence: Marks = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        for index, points in enumerate(strands):
            away = curve_distance(self.shape, points, self.radius + 0.5)
            share = coverage(away, self.radius)
            np.maximum(clean, _TISSUE + share * (_VESSEL - _TISSUE), out=clean)
            inside = away <= self.radius
            label[inside] = self.labels["vessel" if index == rooted else "decoy"]
            evidence[inside] = FIRST_STRAND + index
        root = ellipsoid(self.shape, as_point(strands[rooted][root_end]), _ROOT_RADII)
        root.paint(label, self.labels["root"])
        root.paint(evidence, ROOT)
        if self.control != "erased":
            root.paint(clean, _ROOT)
        return self.finish(clean, label, evidence, rng)

    def _draw_strands(self, num: int, rng: np.random.Generator) -> tuple[list[Floats], int]:
        """Return each vessel's points (N, 3), and which end (0 or -1) has the root."""
        middle = [(size - 1) / 2 for size in self.shape]
        depth, height, width = middle + rng.uniform(-1.0, 1.0, 3) * _MAX_SHIFT
        along = np.linspace(-_LENGTH / 2, _LENGTH / 2, 4 * int(_LENGTH))
        wave = np.sin(along * 2 * pi / _LENGTH + rng.uniform(0.0, 2 * pi))
        rate = 1.0 + _RATE_SPREAD * wave
        wound = np.cumsum(rate) / np.sum(rate)
        winding = coin(rng) * pi * rng.uniform(self.turns - 1, self.turns)
        angle = rng.uniform(0.0, 2 * pi) + winding * wound
        strands = [
            resample(
                np.stack(
                    [
                        depth + _ROPE_RADIUS * np.sin(angle + 2 * pi * index / num),
                        height + _ROPE_RADIUS * np.cos(angle + 2 * pi * index / num),
                        width + along,
                    ],
                    axis=1,
                ),
                STEP,
            )
            for index in range(num)
        ]
        return strands, 0 if coin(rng) > 0 else -1


def _clearance(turns: int, num_strands: int) -> float:
    """Return the least distance between the middles of neighbouring vessels, in voxels."""
    rate = turns * pi * (1 + _RATE_SPREAD) / _LENGTH
    across = 2 * _ROPE_RADIUS * np.sin(pi / num_strands)
    along = 2 * pi / num_strands / rate / sqrt(1 + (_ROPE_RADIUS * rate) ** 2)
    return float(min(across, along))
