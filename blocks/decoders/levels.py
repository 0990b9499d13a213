"""What decoders take for all their levels at once, or level by level, fine to coarse."""

from typing import Annotated

from pydantic import BeforeValidator

from blocks.base import MAX_BLOCKS, MAX_KERNEL, Allowed, Grid, SpecError, is_count
from blocks.layers.conv import odd_kernel


def _is_axes(value: object) -> bool:
    if not isinstance(value, tuple):
        return is_count(value, most=MAX_KERNEL)
    return len(value) in (2, 3) and all(is_count(axis, most=MAX_KERNEL) for axis in value)


def _check_kernels(value: object) -> object:
    by_level = isinstance(value, tuple) and any(isinstance(entry, tuple) for entry in value)
    if not all(_is_axes(entry) for entry in (value if by_level else [value])):  # type: ignore[attr-defined]
        raise ValueError(
            "must be a positive integer, a list with one per axis (2 or 3), or such a list per "
            f"level, fine to coarse, as in [[1, 3, 3], [3, 3, 3]], at most {MAX_KERNEL} each"
        )
    return value


def _check_counts(value: object, least: int) -> object:
    entries = value if isinstance(value, tuple) else (value,)
    if not entries or not all(is_count(entry, least=least, most=MAX_BLOCKS) for entry in entries):
        raise ValueError(
            f"must be an integer of at least {least}, at most {MAX_BLOCKS}, or a list with one per "
            "level, fine to coarse"
        )
    return value


LevelKernels = Annotated[
    int | tuple[int | tuple[int, ...], ...],
    BeforeValidator(_check_kernels),
    Allowed("integer >= 1, one per axis, or such a list per level"),
]
"""One kernel for all levels, or a list with a list in it: one kernel per level."""
LevelCounts = Annotated[
    int | tuple[int, ...],
    BeforeValidator(lambda value: _check_counts(value, 1)),
    Allowed("integer >= 1, or one per level"),
]
LevelCountsOrZero = Annotated[
    int | tuple[int, ...],
    BeforeValidator(lambda value: _check_counts(value, 0)),
    Allowed("integer >= 0, or one per level"),
]


def level_kernels(
    value: int | tuple[int | tuple[int, ...], ...], num_levels: int, ndim: int
) -> tuple[Grid, ...]:
    """Return the kernel of every level, odd along each axis.

    Raises:
        SpecError: another number of levels or axes, or an even one.
    """
    if isinstance(value, tuple) and any(isinstance(entry, tuple) for entry in value):
        _check_length(value, num_levels, field="kernel_size")
        return tuple(odd_kernel(entry, ndim) for entry in value)
    return (odd_kernel(value, ndim),) * num_levels  # type: ignore[arg-type]


def level_counts(value: int | tuple[int, ...], num_levels: int, *, field: str) -> tuple[int, ...]:
    """Return the count of every level.

    Raises:
        SpecError: a list of another length.
    """
    if isinstance(value, int):
        return (value,) * num_levels
    _check_length(value, num_levels, field=field)
    return value


def _check_length(value: tuple[object, ...], num_levels: int, *, field: str) -> None:
    if len(value) != num_levels:
        raise SpecError(
            f"{len(value)} entries, but the decoder has {num_levels} levels",
            field=field,
            suggestion="give one for all, or one per level, fine to coarse",
        )
