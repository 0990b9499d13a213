"""What every component shares: shapes, bounds, and the spec base class."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from blocks.errors import SpecError as SpecError  # a component needs no other import than this file

Grid = tuple[int, ...]

MAX_WIDTH = 16_384
"""Channels of features, and classes."""
MAX_KERNEL = 63
"""Along one axis: of a kernel, a stride or a reduction."""
MAX_STATE = 1024
"""The state of a scan, and how many times its features are wider than the stage's."""
MAX_BLOCKS = 1000
"""Blocks of a network, the steps of its decoder included."""
MAX_COUNT = 10**9
"""What is only counted: steps, epochs, slices."""


@dataclass(frozen=True, slots=True)
class StageShape:
    """Features of shape (B, channels, *grid); the grid has two or three axes, depth first."""

    channels: int
    grid: Grid

    @property
    def ndim(self) -> int:
        return len(self.grid)

    @property
    def positions(self) -> int:
        return math.prod(self.grid)

    @property
    def elements(self) -> int:
        """Return how many numbers one sample is."""
        return self.channels * self.positions


class ComponentSpec(BaseModel):
    """Declare one component. Frozen and strict: unknown fields and loose types are errors.

    In YAML, `kind` names the member of a union; lists arrive here as tuples.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


@dataclass(frozen=True, slots=True)
class Added:
    """Mark a field that schema 1 did not have: `Annotated[bool, Added(False)] = False`.

    `default` is the value that it was introduced with, as YAML writes it, and never changes: hashes
    leave the field out where it has this value, so that those of older specs stay what they are,
    even when the field's own default changes.
    """

    default: Any


@dataclass(frozen=True, slots=True)
class NotWeights:
    """Mark a field that leaves keys, shapes and meaning of the weights alone: how they start, say.

    The arch hash leaves it out. With `label` no training depends on it either, and the trial hash
    leaves it out too.
    """

    label: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """Say in words what a field takes that a validator judges: `Annotated[str, Allowed("...")]`."""

    text: str


def is_count(value: object, *, least: int = 1, most: int) -> bool:
    """Say whether a value is an integer in these bounds; true and false are none."""
    return type(value) is int and least <= value <= most


def _check_axes(value: object) -> object:
    axes = value if isinstance(value, tuple) else (value,)
    if not all(is_count(axis, most=MAX_KERNEL) for axis in axes):
        raise ValueError(
            f"must be a positive integer, or a list with one per axis, at most {MAX_KERNEL} each"
        )
    if isinstance(value, tuple) and len(axes) not in (2, 3):
        raise ValueError("a list must have 2 or 3 entries, one per axis")
    return value


def _check_axes_or_auto(value: object) -> object:
    if value == "auto":
        return value
    try:
        return _check_axes(value)
    except ValueError as error:
        raise ValueError(f"{error}; or auto") from None


class LayerSpec(ComponentSpec):
    """Declare a component that keeps the shape of the features: a mixer, an FFN or a block."""

    divisor_field: ClassVar[str] = "reduction"
    """The field that sets `divisor`; the plan names it where a grid does not divide."""

    def divisor(self, ndim: int) -> Grid:
        """Return by what each axis of the grid must divide, at every input size.

        Raises:
            SpecError: as `check`.
        """
        return (1,) * ndim

    def settled(self, at: StageShape, largest: Callable[[int], Grid]) -> Self:
        """Return this with numbers for what it leaves to the grid; the plan builds what comes back.

        `at` is the shape at the patch size, padded where it is. `largest(n)` is, per axis, the
        largest number up to n that `divisor` could return there.

        Raises:
            SpecError: as `check`.
        """
        return self

    def check(self, at: StageShape) -> None:
        """Refuse, with the field's name, what cannot work at this shape; called by the plan.

        Raises:
            SpecError: `field` is the field's name; the plan puts the path before it.
        """

    def largest(self, at: StageShape) -> int:
        """Return the elements of its largest tensor: a weight, or what it computes of one sample.

        The features of `at` themselves, which the plan knows, need no mention.
        """
        return at.elements


Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]
Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]
Kernel = Annotated[int, Field(gt=0, le=MAX_KERNEL)]
State = Annotated[int, Field(gt=0, le=MAX_STATE)]
Depth = Annotated[int, Field(ge=0, le=MAX_BLOCKS)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
_AXIS = {"type": "integer", "minimum": 1, "maximum": MAX_KERNEL}
_AXES = (_AXIS, {"type": "array", "items": _AXIS, "minItems": 2, "maxItems": 3})
Axes = Annotated[
    int | tuple[int, ...],
    BeforeValidator(_check_axes),
    Allowed("integer >= 1, or one per axis"),
    WithJsonSchema({"anyOf": [*_AXES]}),
]
"""A kernel, a stride or a reduction: one for all axes, or one for each."""
AxesOrAuto = Annotated[
    int | tuple[int, ...] | Literal["auto"],
    BeforeValidator(_check_axes_or_auto),
    Allowed("integer >= 1, or one per axis, or auto"),
    WithJsonSchema({"anyOf": [*_AXES, {"const": "auto"}]}),
]


def per_axis(value: int | tuple[int, ...], ndim: int, *, where: str) -> Grid:
    """Return one value per spatial axis.

    Raises:
        SpecError: `value` lists another number of axes than the patch size has.
    """
    if isinstance(value, int):
        return (value,) * ndim
    if len(value) != ndim:
        raise SpecError(
            f"{list(value)} has {len(value)} entries, but patch_size has {ndim} axes",
            field=where,
            suggestion=f"give one integer or {ndim} of them",
            other="patch_size",
        )
    return value
