"""ArchSpec + sizes -> Plan: all shape arithmetic and all refusals about sizes live here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from archspec.network.bounds import (
    blocks_problems,
    input_problems,
    part_problems,
    stage_problems,
    up_to,
)
from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.stage_rules import check_entry, check_tap
from archspec.network.stages import fitted
from archspec.network.strides import (
    largest_divisor,
    nearest_patch,
    total_stride,
)
from archspec.network.window import Window, next_size
from archspec.spec.claims import MAX_PATCH_AXIS
from archspec.spec.schema import ArchSpec, StageSpec
from blocks.base import MAX_WIDTH, Grid, LayerSpec, SpecError, StageShape, is_count
from blocks.decoders.decoder import Heads, Skips, divides, plans_strides
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import Problem, quoted
from blocks.layers.norm import OnePositionError, check_norm

_MORE = 3
"""Sizes per axis that are tried where the next one that divides does not suffice."""


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
    """Every shape of one network; integers only beside the spec it was made from.

    The spec has numbers for what it left to the grid, such as `reduction: auto` of attention, so
    that the network is the same wherever it is planned again, at whatever size.
    The network runs at `padded_size`, which is the patch where that suits it; `stages` have their
    grids there, `output_grids` those of the patch.
    """

    spec: ArchSpec
    in_channels: int
    num_classes: int
    patch_size: Grid
    padded_size: Grid
    stages: tuple[StagePlan, ...]
    output_grids: tuple[Grid, ...]

    @property
    def sizes(self) -> InputSizes:
        """Return what it was planned for, for another plan at the same sizes."""
        return InputSizes(
            in_channels=self.in_channels, num_classes=self.num_classes, patch_size=self.patch_size
        )

    @property
    def patch_text(self) -> str:
        """Return the patch, and what it is padded to where it is."""
        text = str(list(self.patch_size))
        padded = self.padded_size != self.patch_size
        return f"{text}, padded to {list(self.padded_size)}" if padded else text

    @property
    def padding(self) -> float:
        """Return how many times the voxels of the patch the network computes on."""
        return math.prod(self.padded_size) / math.prod(self.patch_size)

    @property
    def heads_left_out(self) -> int:
        """Return how many auxiliary heads are not built: their grids do not divide the patch."""
        return self.spec.deep_supervision.heads - len(self.output_grids)

    @property
    def window(self) -> Window:
        """Return what the network makes of an input's size."""
        return Window(
            in_channels=self.in_channels,
            patch_size=self.patch_size,
            padded_size=self.padded_size,
            total_stride=self.total_stride,
        )

    @property
    def skips(self) -> tuple[StageShape, ...]:
        """Return the features that stages, or a model of timm, give the decoder."""
        return _skips(self.spec, self.input, self.stages)

    @property
    def input(self) -> StageShape:
        """Return the shape that the network runs at."""
        return StageShape(self.in_channels, self.padded_size)

    @property
    def decoder_inputs(self) -> Skips:
        """Return what the decoder gets: the skips, behind the network's input if it asks for it."""
        return self.spec.decoder.inputs(self.input, self.skips)

    @property
    def strides(self) -> list[list[int]]:
        """Return what nnU-Net's plans call `strides`: the scales of the outputs."""
        return plans_strides(self.output_grids)

    @property
    def total_stride(self) -> Grid:
        """Return by what every axis of an input must divide: strides, and what mixers need."""
        return total_stride(self.spec, len(self.patch_size))


def plan(spec: ArchSpec, sizes: InputSizes = OF_SPEC) -> Plan:
    """Resolve every shape; the sizes win over the spec's own defaults.

    With `fit_stages` the plan is that of the fitted spec.

    Raises:
        SpecError: a grid that does not divide, or a component that cannot work at its shape.
    """
    given: Any = spec.patch_size if sizes.patch_size is None else sizes.patch_size
    patch = tuple(given) if isinstance(given, tuple | list) else (given,)
    channels = spec.in_channels if sizes.in_channels is None else sizes.in_channels
    classes = spec.num_classes if sizes.num_classes is None else sizes.num_classes
    found = [
        Problem(
            f"must be an integer of at least 1, but is {quoted(value)}",
            field=name,
            allowed=up_to(MAX_WIDTH, value),
        )
        for name, value in (("in_channels", channels), ("num_classes", classes))
        if not is_count(value, most=MAX_WIDTH)
    ]
    if len(patch) not in (2, 3) or not all(is_count(n, most=MAX_PATCH_AXIS) for n in patch):
        problem = f"must be 2 or 3 sizes in voxels, e.g. (32, 32, 32), but is {quoted(given)}"
        allowed = up_to(MAX_PATCH_AXIS, *patch)
        found.append(Problem(problem, field="patch_size", allowed=allowed))
    if found:
        raise SpecError(found)
    if sizes.fit_stages:
        spec = fitted(spec, replace(sizes, patch_size=patch)).spec
    if sizes.exact:
        return _Planning(spec, channels, classes, patch).plan()
    return _padded(spec, channels, classes, patch)


def _padded(spec: ArchSpec, channels: int, classes: int, patch: Grid) -> Plan:
    """Plan at the next size, nowhere smaller than the patch, that suits the network.

    Strides and reductions say what an axis must divide by; a forced number of slices, or a norm
    over one position, may ask for more, of which the least that suffices is taken.
    """
    first = _Planning(spec, channels, classes, patch)
    total = first.total_stride()
    least = next_size(patch, total)
    counts = product(range(_MORE), repeat=len(patch))
    larger = (
        tuple(n + m * t for n, m, t in zip(least, more, total, strict=True)) for more in counts
    )
    first.padded = least
    try:
        return first.plan()
    except SpecError as error:
        if any(one.other != "patch_size" for one in error.problems):
            raise
        refused = error
    for size in sorted(larger, key=math.prod):
        try:
            return _Planning(spec, channels, classes, patch, size).plan(advise=False)
        except SpecError:
            continue
    raise refused


class _Planning:
    """Plan one spec for one patch, and collect what is wrong on the way.

    A stage whose grid does not divide is planned on with the next that does; what that changes
    further down is not told, for it has the same cause.
    """

    def __init__(
        self,
        spec: ArchSpec,
        channels: int,
        classes: int,
        patch: Grid,
        padded: Grid | None = None,
    ) -> None:
        self.spec = spec
        self.channels = channels
        self.classes = classes
        self.patch = patch
        self.padded = patch if padded is None else padded
        self.problems: list[Problem] = []
        self.one_position: Problem | None = None
        self.divides = True

    def plan(self, *, advise: bool = True) -> Plan:
        """Return the plan; `advise` looks for a patch where a grid has one position.

        Raises:
            SpecError: every mistake that was found.
        """
        spec, channels, classes = self.spec, self.channels, self.classes
        self.total_stride()
        whole, stages = StageShape(channels, self.padded), []
        self._check_input(whole)
        inp = whole
        for index, stage in enumerate(spec.encoder.stages):
            stages.append(self._stage(stage, inp, f"encoder.stages.{index}"))
            inp = stages[-1].out
        spec = _settled(spec, stages)
        skips = _skips(spec, whole, tuple(stages))
        inputs = spec.decoder.inputs(whole, skips)
        count = spec.deep_supervision.heads
        heads = Heads(count=count, num_classes=classes, patch_size=self.padded)
        fed = bool(skips) or not stages  # a last stage without a skip is a problem already
        if self.divides and fed:
            self._check("", lambda: spec.decoder.check(inputs, heads))
        self._raise(advise)
        self._check_bounds(whole, stages, inputs, heads)
        grids = tuple(
            tuple(n * g // p for n, p, g in zip(self.patch, self.padded, grid, strict=True))
            for grid in spec.decoder.output_grids(inputs, heads)
            if divides(self.patch, self.padded, grid)
        )
        return Plan(spec, channels, classes, self.patch, self.padded, tuple(stages), grids)

    def total_stride(self) -> Grid:
        """Return by what every axis must divide.

        Raises:
            SpecError: strides or reductions for another number of axes: nothing has a shape.
        """
        for index, stage in enumerate(self.spec.encoder.stages):
            path = f"encoder.stages.{index}"
            self._check(f"{path}.downsample", partial(stage.downsample.strides, len(self.patch)))
            self._check(f"{path}.mixer", partial(stage.mixer.divisor, len(self.patch)))
            self._check(f"{path}.post", partial(stage.post.divisor, len(self.patch)))
        self._raise(advise=False)
        return total_stride(self.spec, len(self.patch))

    def _stage(self, stage: StageSpec, inp: StageShape, path: str) -> StagePlan:
        stride = stage.downsample.strides(inp.ndim)
        self._check_divides(inp.grid, stride, f"{path}.downsample.stride")
        grid = tuple(-(-n // s) for n, s in zip(inp.grid, stride, strict=True))
        out = StageShape(stage.width, grid)
        self._check(f"{path}.downsample", lambda: stage.downsample.check(inp, out))
        if stage.has_local:
            self._check(f"{path}.local", lambda: stage.local.check(out))
        mixed = stage.block.mixer_shape(out)
        last = stage is self.spec.encoder.stages[-1]
        largest = partial(largest_divisor, stage.block, grid)
        stage = self._settled(stage, "mixer", mixed, largest, path)
        stage = self._settled(stage, "post", out, partial(largest_divisor, None, grid), path)
        if stage.depth:  # a stage without blocks builds none of their parts
            self._check(f"{path}.block", lambda: stage.block.check(out))
            field = f"{path}.mixer.{stage.mixer.divisor_field}"
            needed = stage.block.grid_divisor(stage.mixer.divisor(out.ndim))
            self._check_divides(out.grid, needed, field)
            if self.divides:
                self._check(f"{path}.mixer", lambda: stage.mixer.check(mixed))
            self._check(f"{path}.ffn", lambda: stage.ffn.check(out))
        field = f"{path}.post.{stage.post.divisor_field}"
        self._check_divides(out.grid, stage.post.divisor(out.ndim), field)
        if self.divides or stage.post.kind != "mixer":
            self._check(f"{path}.post", lambda: stage.post.check(out))
        self._check(path, lambda: check_norm(stage.norm, out, field="norm"))
        self._check(f"{path}.skip", lambda: stage.skip.check(out))
        self._check(path, lambda: check_entry(stage))
        self._check(path, lambda: check_tap(stage, last=last))
        return StagePlan(path, stage, inp, mixed, out)

    def _check_input(self, inp: StageShape) -> None:
        """Refuse an input that is too large before anything computes with its size.

        Raises:
            SpecError: see above.
        """
        self.problems += input_problems(self.patch, inp)
        self._raise(advise=False)

    def _check_bounds(
        self,
        inp: StageShape,
        stages: list[StagePlan],
        inputs: tuple[StageShape, ...],
        heads: Heads,
    ) -> None:
        """Refuse more blocks, or larger tensors, than there may be.

        Raises:
            SpecError: see above.
        """
        self.problems += blocks_problems(self.spec, inputs)
        for one in stages:
            if not self.problems:
                self.problems += stage_problems(one.spec, one.path, one.inp, one.mixed, one.out)
        if not self.problems:
            self.problems += part_problems(self.spec, inp, inputs, heads)
        self._raise(advise=False)

    def _settled(
        self,
        stage: StageSpec,
        name: str,
        at: StageShape,
        largest: Callable[[int], Grid],
        path: str,
    ) -> StageSpec:
        """Return the stage with numbers for what one of its parts leaves to the grid."""
        part: LayerSpec = getattr(stage, name)
        settled = part
        try:
            settled = part.settled(at, largest)
        except SpecError as error:
            self.problems += error.below(f"{path}.{name}").problems
        return stage if settled is part else stage.model_copy(update={name: settled})

    def _check_divides(self, grid: Grid, divisor: Grid, field: str) -> None:
        if self.divides and any(n % d for n, d in zip(grid, divisor, strict=True)):
            self.divides = False
            self.problems.append(
                Problem(
                    f"grid {list(grid)} must divide by {list(divisor)}",
                    field=field,
                    suggestion=nearest_patch(self.spec, self.patch),
                    other="patch_size",
                )
            )

    def _check(self, path: str, action: Callable[[], object]) -> None:
        """Run the action; keep what it refuses, the path put before its field."""
        try:
            action()
        except OnePositionError as error:
            if self.divides and self.one_position is None:  # the others have the same cause
                (self.one_position,) = error.below(path).problems
                self.problems.append(self.one_position)
        except SpecError as error:
            self.problems += error.below(path).problems

    def _raise(self, advise: bool) -> None:
        if not self.problems:
            return
        if self.one_position is not None and advise:
            advised = replace(
                self.one_position, suggestion=self.one_position.suggestion + self._enough_patch()
            )
            index = self.problems.index(self.one_position)
            self.problems[index] = advised
        raise SpecError(self.problems)

    def _enough_patch(self) -> str:
        """Return a clause with the nearest patch, longer along its last axis, that is planned."""
        total = total_stride(self.spec, len(self.patch))
        least = tuple(-(-n // t) * t for n, t in zip(self.patch, total, strict=True))
        for extra in range(5):
            longer = (*least[:-1], least[-1] + extra * total[-1])
            try:
                _Planning(self.spec, self.channels, self.classes, longer).plan(advise=False)
            except SpecError:
                continue
            return f"; nearest patch_size: {list(longer)}"
        return ""


def _settled(spec: ArchSpec, stages: list[StagePlan]) -> ArchSpec:
    """Return the spec with its stages as they were planned."""
    planned = tuple(stage.spec for stage in stages)
    if all(a is b for a, b in zip(planned, spec.encoder.stages, strict=True)):
        return spec
    encoder = spec.encoder.model_copy(update={"stages": planned})
    return spec.model_copy(update={"encoder": encoder})


def _skips(
    spec: ArchSpec, inp: StageShape, stages: tuple[StagePlan, ...]
) -> tuple[StageShape, ...]:
    if isinstance(spec.encoder, TimmEncoderSpec):
        return spec.encoder.features(inp)
    return tuple(stage.out for stage in stages if stage.spec.skip.tap != "none")
