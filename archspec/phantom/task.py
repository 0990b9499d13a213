"""What every phantom task is: knobs in, one volume with its labels and its evidence out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal, NamedTuple, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.fields import bias_field
from archspec.phantom.painting import Floats, Point, Shape
from blocks.base import SpecError

Control = Literal["none", "erased", "oracle"]
Marks = NDArray[np.uint8]
Word = TypeVar("Word", bound=str)

ORACLE_CHANNEL = "oracle"

_MAX_NOISE = 0.3


def one_of(field: str, text: str, allowed: tuple[Word, ...]) -> Word:
    """Return the allowed word that the text is. Raises: SpecError for another text."""
    for word in allowed:
        if text == word:
            return word
    raise SpecError(f"must be one of {', '.join(allowed)}, got {text!r}", field=field)


def as_control(text: str) -> Control:
    """Return a control by name. Raises: SpecError for an unknown name."""
    allowed: tuple[Control, ...] = get_args(Control)
    return one_of("control", text, allowed)


class Volume(NamedTuple):
    """Hold one case.

    Image (C, D, H, W) float32, label (D, H, W) uint8, and evidence (D, H, W) uint8: a number above
    0 for each thing that decides a label or whose label is decided, 0 elsewhere. Evidence is empty
    where every label follows from its neighbourhood.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    evidence: Marks


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Hold the knobs that all tasks share.

    `spacing` in mm (D, H, W), `noise` the standard deviation in units where tissue is 1, `blur` the
    standard deviation in voxels of the partial-volume blur, `bias` the strength b of a smooth
    factor exp(b f) with f in -1..1.

    `control` makes the task's own check: `erased` leaves the deciding evidence out of the image and
    keeps every label, so that no network can beat chance; `oracle` adds a channel that holds, at
    every voxel, the answer for the nearest thing that has one, so that any network can succeed.

    Raises: SpecError for a value out of range.
    """

    spacing: Point = (1.0, 1.0, 1.0)
    noise: float = 0.1
    blur: float = 0.7
    bias: float = 0.0
    control: Control = "none"

    name: ClassVar[str]
    summary: ClassVar[str]
    labels: ClassVar[Mapping[str, int]]
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    decided: ClassVar[tuple[str, ...]] = ()
    """The labels that look alike: only the evidence tells them apart."""
    local_radius: ClassVar[int] = 4
    """A neighbourhood this far around a decided voxel, away from the evidence, tells nothing."""
    knob: ClassVar[str]
    levels: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        if len(self.spacing) != 3 or not all(0.0 < size < float("inf") for size in self.spacing):
            raise SpecError(
                f"must be three positive sizes in mm (D, H, W), got {self.spacing}",
                field="spacing",
                suggestion="use e.g. (1.0, 1.0, 1.0)",
            )
        if not 0.0 <= self.noise <= _MAX_NOISE:
            raise SpecError(
                f"must lie in 0..{_MAX_NOISE} (half the contrast of a target), got {self.noise}",
                field="noise",
                suggestion="use e.g. 0.1",
            )
        if not 0.0 <= self.blur <= 2.0:
            raise SpecError(
                "must lie in 0..2 voxels, since a wider blur hides thin structures, "
                f"got {self.blur}",
                field="blur",
                suggestion="use e.g. 0.7",
            )
        if not 0.0 <= self.bias <= 1.0:
            raise SpecError(
                f"must lie in 0..1, got {self.bias}", field="bias", suggestion="use e.g. 0.3"
            )
        if as_control(self.control) != "none" and not self.decided:
            raise SpecError(
                f"task {self.name} has no far evidence to erase or to give away, got "
                f"{self.control!r}",
                field="control",
                suggestion="use none",
            )

    @classmethod
    def at_level(cls, level: str) -> Self:
        """Return the task at one of its levels. Raises: SpecError for another level."""
        if level not in cls.levels:
            raise SpecError(
                f"task {cls.name} has {cls.knob} {', '.join(cls.levels)}, got {level!r}",
                field="level",
            )
        return cls._at(level)

    @classmethod
    @abstractmethod
    def _at(cls, level: str) -> Self: ...

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Return the grid (D, H, W)."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Return nnU-Net's channel names; any name but CT is normalised image by image."""
        return ("MR", ORACLE_CHANNEL) if self.control == "oracle" else ("MR",)

    @property
    def level(self) -> str | None:
        """Return which of the levels this is; None for knobs set one by one."""
        shared = {field.name: getattr(self, field.name) for field in fields(Task)}
        known = (level for level in self.levels if replace(self._at(level), **shared) == self)
        return next(known, None)

    @property
    def limits(self) -> AugmentationLimits | None:
        """Return how far augmentation may go; None where nnU-Net's own settings are right."""
        return None

    @property
    def num_cases(self) -> int | None:
        """Return how many cases the level asks for; None where it is free."""
        return None

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Volume:
        """Draw one case."""

    def decide(self, evidence: Marks) -> dict[int, str]:
        """Return the label's name that the rule gives to each mark, from the marks alone.

        All marks must be in sight.
        """
        return {}

    def metadata(self) -> dict[str, object]:
        """Return the knobs for dataset.json."""
        shared = {field.name for field in fields(Task)}
        knobs = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {name: value for name, value in knobs.items() if name not in shared}
        content = {name: value for name, value in own.items() if value is not None}
        content |= {"noise": self.noise, "blur": self.blur}
        content |= {"bias": self.bias} if self.bias else {}
        content |= {"control": self.control} if self.control != "none" else {}
        content |= {"augmentation": self.limits.tree()} if self.limits else {}
        level = {} if self.level is None else {"level": self.level}
        return {"task": self.name, **level, **content}

    def finish(
        self,
        clean: Floats,
        label: NDArray[np.uint8],
        evidence: Marks,
        rng: np.random.Generator,
        *,
        factor: Floats | None = None,
        oracle_radius: float = float("inf"),
    ) -> Volume:
        """Blur a painted image (D, H, W), shade it, add noise; add the oracle's channel.

        `factor` (D, H, W) multiplies the blurred image.
        """
        image = ndimage.gaussian_filter(clean, self.blur, mode="nearest")
        noise = rng.normal(0.0, self.noise, clean.shape)
        if self.bias:
            image *= bias_field(self.shape, self.bias, rng)
        if factor is not None:
            image *= factor
        image += noise
        channels = [image]
        if self.control == "oracle":
            channels.append(self._oracle(label, oracle_radius))
        return Volume(np.stack(channels).astype(np.float32), label, evidence)

    def _oracle(self, label: NDArray[np.uint8], radius: float) -> Floats:
        """Return +1 nearest to the first decided label, -1 to the second, 0 beyond `radius`."""
        first, second = (self.labels[name] for name in self.decided)
        away, nearest = ndimage.distance_transform_edt(
            ~np.isin(label, (first, second)), return_indices=True
        )
        answer: Floats = np.where(label[tuple(nearest)] == first, 1.0, -1.0)
        answer[away > radius] = 0.0
        return answer
