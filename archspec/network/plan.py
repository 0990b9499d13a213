"""ArchSpec + sizes -> Plan: all shape arithmetic and all refusals about sizes live here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from archspec.spec.schema import ArchSpec, StageSpec
from blocks.base import Grid, SpecError, StageShape
from blocks.decoders.decoder import plans_strides
from blocks.layers.norm import OnePositionError, check_norm
from blocks.wrappers.block import ConvBlockSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: features (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid).

    `mixed` is what the mixer sees, which the block may have at another grid.
    """

    path: str
    spec: StageSpec
    inp: StageShape
    mixed: StageShape
    out: StageShape


@dataclass(frozen=True, slots=True)
class Plan:
    """Every shape of one network; integers only beside the spec it was made from."""

    spec: ArchSpec
    in_channels: int
    num_classes: int
    patch_size: Grid
    stages: tuple[StagePlan, ...]
    output_grids: tuple[Grid, ...]

    @property
    def skips(self) -> tuple[StageShape, ...]:
        return tuple(stage.out for stage in self.stages)

    @property
    def decoder_inputs(self) -> tuple[StageShape, ...]:
        """Return what the decoder gets: the skips, behind the network's input if it asks for it."""
        return _decoder_inputs(self.spec, self.stages)

    @property
    def strides(self) -> list[list[int]]:
        """Return what nnU-Net's plans call `strides`: the scales of the outputs."""
        return plans_strides(self.output_grids)

    @property
    def total_stride(self) -> Grid:
        """Return by what every axis of an input must divide: strides, and what mixers need."""
        return total_stride(self.spec, len(self.patch_size))


def plan(
    spec: ArchSpec,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> Plan:
    """Resolve every shape; arguments win over the spec's own defaults.

    Raises:
        SpecError: a grid that does not divide, or a component that cannot work at its shape.
    """
    given: Any = spec.patch_size if patch_size is None else patch_size
    patch = tuple(given) if isinstance(given, tuple | list) else (given,)
    channels = spec.in_channels if in_channels is None else in_channels
    classes = spec.num_classes if num_classes is None else num_classes
    for name, value, least in (("in_channels", channels, 1), ("num_classes", classes, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SpecError(f"{name}: must be an integer of at least {least}, but is {value!r}")
    if len(patch) not in (2, 3) or any(type(n) is not int or n < 1 for n in patch):
        raise SpecError(
            f"patch_size: must be 2 or 3 sizes in voxels, e.g. (32, 32, 32), but is {given!r}"
        )
    for index, stage in enumerate(spec.encoder.stages):
        at = f"encoder.stages.{index}.downsample"
        _checked(at, partial(stage.downsample.strides, len(patch)))
        _checked(f"encoder.stages.{index}.mixer", partial(stage.mixer.divisor, len(patch)))
    try:
        return _resolved(spec, channels, classes, patch)
    except OnePositionError as error:
        enough = _enough_patch(spec, channels, classes, patch)
        raise OnePositionError(f"{error}{enough}") from None


def _resolved(spec: ArchSpec, channels: int, classes: int, patch: Grid) -> Plan:
    inp, stages = StageShape(channels, patch), []
    for index, stage in enumerate(spec.encoder.stages):
        planned = _plan_stage(stage, inp, patch, f"encoder.stages.{index}", spec)
        _check_entry(stage, f"encoder.stages.{index}")
        _check_tap(stage, f"encoder.stages.{index}", last=stage is spec.encoder.stages[-1])
        stages.append(planned)
        inp = planned.out
    inputs = _decoder_inputs(spec, tuple(stages))
    heads = spec.deep_supervision.heads
    spec.decoder.check(inputs, patch_size=patch, num_heads=heads)
    grids = spec.decoder.output_grids(inputs, patch_size=patch, num_heads=heads)
    return Plan(spec, channels, classes, patch, tuple(stages), grids)


def _plan_stage(
    stage: StageSpec, inp: StageShape, patch: Grid, path: str, spec: ArchSpec
) -> StagePlan:
    stride = stage.downsample.strides(inp.ndim)
    if any(n % s for n, s in zip(inp.grid, stride, strict=True)):
        raise SpecError(
            f"{path}.downsample.stride: grid {list(inp.grid)} must divide by {list(stride)}; "
            f"{_nearest_patch(spec, patch)}"
        )
    grid = tuple(n // s for n, s in zip(inp.grid, stride, strict=True))
    out = StageShape(stage.width, grid)
    _checked(f"{path}.downsample", lambda: stage.downsample.check(inp, out))
    if stage.has_local:
        _checked(f"{path}.local", lambda: stage.local.check(out))
    mixed = stage.block.mixer_shape(out)
    if stage.depth:
        _check_blocks(stage, out, mixed, patch, path, spec)
    _checked(f"{path}.post", lambda: stage.post.check(out))
    _checked(path, lambda: check_norm(stage.norm, out, field="norm"))
    _checked(f"{path}.skip", lambda: stage.skip.check(out))
    return StagePlan(path, stage, inp, mixed, out)


def _check_blocks(
    stage: StageSpec, out: StageShape, mixed: StageShape, patch: Grid, path: str, spec: ArchSpec
) -> None:
    """Refuse what the blocks' parts cannot do; a stage without blocks builds none of them."""
    _checked(f"{path}.block", lambda: stage.block.check(out))
    divisor = _stage_divisor(stage, out.ndim)
    if any(n % d for n, d in zip(out.grid, divisor, strict=True)):
        field = f"{path}.mixer.{stage.mixer.divisor_field}"
        raise SpecError(
            f"{field}: grid {list(out.grid)} must divide by {list(divisor)}; "
            f"{_nearest_patch(spec, patch)}"
        )
    _checked(f"{path}.mixer", lambda: stage.mixer.check(mixed))
    _checked(f"{path}.ffn", lambda: stage.ffn.check(out))


def _stage_divisor(stage: StageSpec, ndim: int) -> Grid:
    """Return by what the stage's grid must divide for its mixers' sake."""
    if stage.depth == 0:
        return (1,) * ndim
    return stage.block.grid_divisor(stage.mixer.divisor(ndim))


def _decoder_inputs(spec: ArchSpec, stages: tuple[StagePlan, ...]) -> tuple[StageShape, ...]:
    skips = tuple(stage.out for stage in stages)
    return (stages[0].inp, *skips) if spec.decoder.takes_input else skips


def _check_tap(stage: StageSpec, path: str, *, last: bool) -> None:
    built = stage.depth > 0 or stage.has_local
    dead = built or stage.post.kind != "none" or stage.norm != "none"
    if last and dead and stage.skip.tap == "before_blocks":
        raise SpecError(
            f"{path}.skip.tap: 'before_blocks' on the last stage leaves its blocks without use; "
            "use after, or depth: 0 with no local, no post and no norm"
        )


def _check_entry(stage: StageSpec, path: str) -> None:
    """Refuse a stride in the first block where there is none, or where something comes between."""
    if not stage.downsample.in_block:
        return
    needed = None
    if not isinstance(stage.block, ConvBlockSpec):
        needed = f"block.kind basic or plain, not {stage.block.kind!r}"
    elif stage.depth == 0:
        needed = "depth of at least 1, for the block that holds the stride"
    elif stage.local.kind != "none":
        needed = f"local.kind none, not {stage.local.kind!r}, which would come before the stride"
    elif stage.skip.tap == "before_blocks":
        needed = "skip.tap after, because the stage's grid starts in its first block"
    if needed is not None:
        raise SpecError(f"{path}.downsample.in_block: true needs {needed}")


def _checked(path: str, action: Callable[[], T]) -> T:
    """Run the action; put the path before the field that its SpecError starts with."""
    try:
        return action()
    except SpecError as error:
        raise type(error)(f"{path}.{error}") from None


def total_stride(spec: ArchSpec, ndim: int) -> Grid:
    """Return by what every axis of a patch must divide.

    Raises:
        SpecError: a stride or a mixer that is declared for another number of axes.
    """
    step, total = (1,) * ndim, (1,) * ndim
    for stage in spec.encoder.stages:
        step = tuple(map(math.prod, zip(step, stage.downsample.strides(ndim), strict=True)))
        needs = map(math.prod, zip(step, _stage_divisor(stage, ndim), strict=True))
        total = tuple(map(math.lcm, total, needs))
    return total


def _enough_patch(spec: ArchSpec, channels: int, classes: int, patch: Grid) -> str:
    """Return a clause with the nearest patch, longer along its last axis, that can be planned."""
    total = total_stride(spec, len(patch))
    least = tuple(-(-n // t) * t for n, t in zip(patch, total, strict=True))
    for extra in range(5):
        longer = (*least[:-1], least[-1] + extra * total[-1])
        try:
            _resolved(spec, channels, classes, longer)
        except SpecError:
            continue
        return f"; nearest patch_size: {list(longer)}"
    return ""


def _nearest_patch(spec: ArchSpec, patch: Grid) -> str:
    total = total_stride(spec, len(patch))
    up = [-(-n // t) * t for n, t in zip(patch, total, strict=True)]
    down = [max(n // t, 1) * t for n, t in zip(patch, total, strict=True)]
    nearest = f"{down} or {up}" if down != up else f"{up}"
    return f"patch_size {list(patch)} must divide by {list(total)}; nearest: {nearest}"
