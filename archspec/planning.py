"""ArchSpec + sizes -> Plan: all shape arithmetic and all refusals about sizes live here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from archspec.spec import ArchSpec, StageSpec
from blocks.base import Grid, SpecError, StageShape
from blocks.decoders.decoder import plans_strides
from blocks.layers.norm import check_norm

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: features (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid)."""

    path: str
    spec: StageSpec
    inp: StageShape
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
        return _total_stride(self.spec, len(self.patch_size))


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
    patch = tuple(spec.patch_size if patch_size is None else patch_size)
    channels = spec.in_channels if in_channels is None else in_channels
    classes = spec.num_classes if num_classes is None else num_classes
    for name, value, least in (("in_channels", channels, 1), ("num_classes", classes, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SpecError(f"{name}: must be an integer of at least {least}, but is {value!r}")
    if len(patch) not in (2, 3) or any(type(n) is not int or n < 1 for n in patch):
        raise SpecError(f"patch_size: must be 2 or 3 positive integers, but is {list(patch)}")
    for index, stage in enumerate(spec.encoder.stages):
        at = f"encoder.stages.{index}.downsample"
        _checked(at, partial(stage.downsample.strides, len(patch)))
        _checked(f"encoder.stages.{index}.mixer", partial(stage.mixer.divisor, len(patch)))
    inp, stages = StageShape(channels, patch), []
    for index, stage in enumerate(spec.encoder.stages):
        planned = _plan_stage(stage, inp, patch, f"encoder.stages.{index}", spec)
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
    _checked(f"{path}.block", lambda: stage.block.check(out))
    divisor = stage.mixer.divisor(out.ndim)
    if any(n % d for n, d in zip(out.grid, divisor, strict=True)):
        raise SpecError(
            f"{path}.mixer.reduction: grid {list(out.grid)} must divide by {list(divisor)}; "
            f"{_nearest_patch(spec, patch)}"
        )
    _checked(f"{path}.mixer", lambda: stage.mixer.check(out))
    _checked(f"{path}.ffn", lambda: stage.ffn.check(out))
    _checked(path, lambda: check_norm(stage.norm, out, field="norm"))
    _checked(f"{path}.skip", lambda: stage.skip.check(out))
    return StagePlan(path, stage, inp, out)


def _decoder_inputs(spec: ArchSpec, stages: tuple[StagePlan, ...]) -> tuple[StageShape, ...]:
    skips = tuple(stage.out for stage in stages)
    return (stages[0].inp, *skips) if spec.decoder.takes_input else skips


def _check_tap(stage: StageSpec, path: str, *, last: bool) -> None:
    dead = stage.depth > 0 or stage.has_local or stage.norm != "none"
    if last and dead and stage.skip.tap == "before_blocks":
        raise SpecError(
            f"{path}.skip.tap: 'before_blocks' on the last stage leaves its blocks without use; "
            "use after, or depth: 0 with no local and no norm"
        )


def _checked(path: str, action: Callable[[], T]) -> T:
    """Run the action; put the path before the field that its SpecError starts with."""
    try:
        return action()
    except SpecError as error:
        raise SpecError(f"{path}.{error}") from None


def _total_stride(spec: ArchSpec, ndim: int) -> Grid:
    step, total = (1,) * ndim, (1,) * ndim
    for stage in spec.encoder.stages:
        step = tuple(map(math.prod, zip(step, stage.downsample.strides(ndim), strict=True)))
        needs = map(math.prod, zip(step, stage.mixer.divisor(ndim), strict=True))
        total = tuple(map(math.lcm, total, needs))
    return total


def _nearest_patch(spec: ArchSpec, patch: Grid) -> str:
    total = _total_stride(spec, len(patch))
    up = [-(-n // t) * t for n, t in zip(patch, total, strict=True)]
    down = [max(n // t, 1) * t for n, t in zip(patch, total, strict=True)]
    nearest = f"{down} or {up}" if down != up else f"{up}"
    return f"patch_size {list(patch)} must divide by {list(total)}; nearest: {nearest}"
