"""Patch sizes as a spec states them."""

from typing import Annotated

from pydantic import BeforeValidator


def _check_patch(value: object) -> object:
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise ValueError("must be a list of 2 or 3 sizes in voxels, e.g. [96, 96, 96]")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in value):
        raise ValueError("sizes must be positive integers, in voxels")
    return value


PatchSize = Annotated[tuple[int, ...], BeforeValidator(_check_patch)]
