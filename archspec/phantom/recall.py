"""Recall: look each target's key up among coded landmarks at the other end of the volume.

An entry shows a key (four dots, each bright or dark) around a value (one dot, bright or dark). A
target shows a key only; its label is the value of the entry with the same key. Half of the values
are bright from two pairs on, so counting them tells nothing: a network has to match keys over a
distance, and to hold as many pairs at once as there are.

Legend: D, H, W are the volume's axes. Keys turn with the volume, entries and targets alike, so
flips keep every answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.painting import Floats, Point, Shape, Side, as_point, coin, ellipsoid
from archspec.phantom.task import Marks, Task, Volume
from blocks.base import SpecError

MAX_PAIRS = 16
FIRST_TARGET = 2 * MAX_PAIRS + 1
"""Entry `pair` is marked 1 + 2 pair if its value is bright, 2 + 2 pair if dark; targets follow."""

_NUM_COLUMNS = 8
_PITCH, _INNER = 10.0, 11.0  # between columns along W; from the middle to the first column
_ROW = 7.0
_BODY: Point = (5.0, 5.2, 4.7)
DOT_PLACES = ((-2.6, -2.2), (-2.6, 2.2), (2.6, -2.2), (2.6, 2.2))
"""Where a key's dots lie from an item's centre, (H, W) in voxels."""
_DOT: Point = (3.5, 1.5, 1.5)
_VALUE: Point = (3.5, 1.3, 1.3)
_MAX_SHIFT: Point = (1.5, 1.0, 1.0)
_TISSUE, _ENTRY, _TARGET, _BRIGHT, _DARK = 1.0, 1.4, 1.8, 2.6, 0.5

# Items reach 87 of 96 voxels beside the middle along W, 13 of 16 along H.
_LIMITS = AugmentationLimits(rotation=0.0, scaling=(0.92, 1.25))
_ORACLE_RADIUS = 24.0


@dataclass(frozen=True)
class Pair:
    """Hold an entry and its target; slots 0..15 count along W from the middle, row by row."""

    key: int
    bright: bool
    entry_slot: int
    target_slot: int


@dataclass(frozen=True)
class Scene:
    """Hold what differs between cases; `end` is the end of W at which the entries lie."""

    end: Side
    centre: Point
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, kw_only=True)
class RecallTask(Task):
    """Describe the task.

    With one pair the only value can be read off the whole volume's statistics, so a network with
    instance normalisation needs no key; see the controls.
    """

    blur: float = 0.5
    pairs: int = 4

    name: ClassVar[str] = "recall"
    summary: ClassVar[str] = "each target's label is the value of the far entry with its key"
    labels: ClassVar[Mapping[str, int]] = {"background": 0, "entry": 1, "on": 2, "off": 3}
    decided: ClassVar[tuple[str, ...]] = ("on", "off")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"either_target": decided}
    knob: ClassVar[str] = "pairs"
    levels: ClassVar[tuple[str, ...]] = ("1", "2", "4", "8", "16")
    shape: ClassVar[Shape] = (16, 32, 192)
    limits: ClassVar[AugmentationLimits] = _LIMITS

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= MAX_PAIRS:
            raise SpecError(
                f"must lie in 1..{MAX_PAIRS}, got {self.pairs}",
                field="pairs",
                suggestion="use e.g. 4",
            )
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(pairs=int(level))

    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw and render one case."""
        return self.render(self.draw(rng), rng)

    def decide(self, evidence: Marks) -> dict[int, str]:
        """Give each target the value of its pair's entry."""
        marks = set(np.unique(evidence).tolist())
        return {
            FIRST_TARGET + pair: "on" if 1 + 2 * pair in marks else "off"
            for pair in range(MAX_PAIRS)
            if FIRST_TARGET + pair in marks
        }

    def draw(self, rng: np.random.Generator) -> Scene:
        """Draw keys, values and places independently of each other."""
        middle = [(size - 1) / 2 for size in self.shape]
        bright = np.arange(self.pairs) < self.pairs / 2
        if self.pairs % 2 and rng.random() < 0.5:
            bright = ~bright
        drawn = zip(
            rng.permutation(MAX_PAIRS)[: self.pairs],
            rng.permutation(bright),
            rng.permutation(MAX_PAIRS)[: self.pairs],
            rng.permutation(MAX_PAIRS)[: self.pairs],
            strict=True,
        )
        return Scene(
            end=coin(rng),
            centre=as_point(middle + rng.uniform(-1.0, 1.0, 3) * _MAX_SHIFT),
            pairs=tuple(
                Pair(int(key), bool(value), int(entry), int(target))
                for key, value, entry, target in drawn
            ),
        )

    def render(self, scene: Scene, rng: np.random.Generator) -> Volume:
        """Paint the scene; `rng` draws the noise only."""
        label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        evidence: Marks = np.zeros(self.shape, np.uint8)
        clean = np.full(self.shape, _TISSUE)
        for index, pair in enumerate(scene.pairs):
            entry = _place(scene, pair.entry_slot, scene.end)
            body = ellipsoid(self.shape, entry, _BODY)
            body.paint(label, self.labels["entry"])
            body.paint(evidence, (1 if pair.bright else 2) + 2 * index)
            body.paint(clean, _ENTRY)
            self._paint_key(clean, entry, pair.key)
            if self.control != "erased":
                dot = ellipsoid(self.shape, entry, _VALUE)
                dot.paint(clean, _BRIGHT if pair.bright else _DARK)

            target = _place(scene, pair.target_slot, -1 if scene.end > 0 else 1)
            body = ellipsoid(self.shape, target, _BODY)
            body.paint(label, self.labels["on" if pair.bright else "off"])
            body.paint(evidence, FIRST_TARGET + index)
            body.paint(clean, _TARGET)
            self._paint_key(clean, target, pair.key)
        return self.finish(clean, label, evidence, rng, oracle_radius=_ORACLE_RADIUS)

    def _paint_key(self, clean: Floats, centre: Point, key: int) -> None:
        depth, height, width = centre
        for bit, (by_height, by_width) in enumerate(DOT_PLACES):
            dot = ellipsoid(self.shape, (depth, height + by_height, width + by_width), _DOT)
            dot.paint(clean, _BRIGHT if key >> bit & 1 else _DARK)


def _place(scene: Scene, slot: int, end: Side) -> Point:
    """Return the centre of a slot at one end of W."""
    row, column = divmod(slot, _NUM_COLUMNS)
    depth, height, width = scene.centre
    return depth, height + (2 * row - 1) * _ROW, width + end * (_INNER + _PITCH * column)
