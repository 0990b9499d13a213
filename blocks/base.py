"""What every component shares: shapes, and the spec base class."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from blocks.errors import SpecError as SpecError  # a component needs no other import than this file

Grid = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StageShape:
    """Features of shape (B, channels, *grid); the grid has two or three axes, depth first."""

    channels: int
    grid: Grid

    @property
    def ndim(self) -> int:
        return len(self.grid)


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


def _check_axes(value: object) -> object:
    axes = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(axis, int) and not isinstance(axis, bool) and axis > 0 for axis in axes):
        raise ValueError("must be a positive integer, or a list with one per axis")
    if isinstance(value, tuple) and len(axes) not in (2, 3):
        raise ValueError("a list must have 2 or 3 entries, one per axis")
    return value


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

    def check(self, at: StageShape) -> None:
        """Refuse, with the field's name, what cannot work at this shape; called by the plan.

        Raises:
            SpecError: `field` is the field's name; the plan puts the path before it.
        """


Count = Annotated[int, Field(gt=0)]
Axes = Annotated[int | tuple[int, ...], BeforeValidator(_check_axes)]


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
