"""By what the axes of a patch, and the grid of a stage, must divide."""

import math

from archspec.spec.schema import ArchSpec, StageSpec
from blocks.base import Grid
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.wrappers.block import BlockSpec


def total_stride(spec: ArchSpec, ndim: int) -> Grid:
    """Return by what every axis of a patch must divide.

    Raises:
        SpecError: a stride or a mixer that is declared for another number of axes, or no model of
            timm.
    """
    step, total = (1,) * ndim, spec.decoder.divisor(ndim)
    if isinstance(spec.encoder, TimmEncoderSpec):
        total = tuple(map(math.lcm, total, spec.encoder.divisor(ndim)))
    for stage in spec.encoder.stages:
        step = tuple(map(math.prod, zip(step, stage.downsample.strides(ndim), strict=True)))
        needs = map(math.prod, zip(step, stage_divisor(stage, ndim), strict=True))
        total = tuple(map(math.lcm, total, needs))
    return total


def stage_divisor(stage: StageSpec, ndim: int) -> Grid:
    """Return by what the stage's grid must divide for its mixers' sake, in blocks and behind."""
    behind = stage.post.divisor(ndim)
    if stage.depth == 0:
        return behind
    return tuple(map(math.lcm, behind, stage.block.grid_divisor(stage.mixer.divisor(ndim))))


def largest_divisor(block: BlockSpec | None, grid: Grid, most: int) -> Grid:
    """Return per axis the largest number up to `most` that a mixer in the block may divide it by.

    Without a block the mixer gets the grid itself.
    """
    numbers = [(number,) * len(grid) for number in range(1, most + 1)]
    needed = numbers if block is None else [block.grid_divisor(number) for number in numbers]
    return tuple(
        max(number for number, needs in enumerate(needed, start=1) if n % needs[axis] == 0)
        for axis, n in enumerate(grid)
    )


def nearest_patch(spec: ArchSpec, patch: Grid) -> str:
    total = total_stride(spec, len(patch))
    up = [-(-n // t) * t for n, t in zip(patch, total, strict=True)]
    down = [max(n // t, 1) * t for n, t in zip(patch, total, strict=True)]
    nearest = f"{down} or {up}" if down != up else f"{up}"
    return f"patch_size {list(patch)} must divide by {list(total)}; nearest: {nearest}"
