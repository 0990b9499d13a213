"""Fit strides, kernels and stages to a dataset's spacing, as nnU-Net's planner does for its U-Net.

Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/experiment_planning/experiment_planners/
network_topology.py (2.8.1), `get_pool_and_conv_props`; the rule is followed, not the code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from archspec.network.input_sizes import InputSizes
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec, StageSpec
from archspec.spec.tree import walk
from archspec.spec.yaml_file import dotted
from blocks.base import Grid, SpecError, StageShape, per_axis
from blocks.mixers.cycle import mixers_in
from blocks.post.mixer import MixerPostSpec

_MIN_GRID = 4
"""Positions below which nnU-Net pools no axis (`UNet_featuremap_min_edge_length`)."""

Axes = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class FittedStages:
    """A spec before and after it was fitted to the spacing, in mm along the axes of the patch.

    `dropped` and `kept` are the trailing stages, by their numbers before, that no longer stride.
    """

    before: ArchSpec
    spec: ArchSpec
    spacing: tuple[float, ...]
    dropped: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def note(self) -> str:
        """Return a line that says what was fitted."""
        start = f"`stages_from_dataset`: spacing {' x '.join(f'{n:g}' for n in self.spacing)} mm"
        if self.spec == self.before:
            return f"{start} asks for no change{self._trailing()}"
        ndim = len(self.spacing)
        entries = [stage.downsample for stage in self.spec.encoder.stages]
        strides = [list(one.strides(ndim)) for one in entries]
        kernels = [list(per_axis(one.kernel_size, ndim, where="")) for one in entries]
        text = f"{start}: strides {strides}, kernels {kernels}"
        for field, name in (("kernel_size", "kernels"), ("bottleneck_width", "bottleneck width")):
            value = getattr(self.spec.decoder, field, None)
            if value != getattr(self.before.decoder, field, None):
                text += f", decoder {name} {_as_list(value)}"
        heads = self.spec.deep_supervision.heads
        if heads != self.before.deep_supervision.heads:
            text += f", heads {heads}"
        return f"{text}{self._trailing()}"

    def _trailing(self) -> str:
        """Return what became of the stages that no longer stride."""
        text = ""
        for numbers, what in (
            (self.dropped, "dropped, where no axis is left to stride"),
            (self.kept, "kept at stride 1, for no earlier one has its mixer and block"),
        ):
            if numbers:
                text += f"; stage{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} {what}"
        return text


def _as_list(value: Any) -> Any:
    return [_as_list(entry) for entry in value] if isinstance(value, tuple) else value


def fit_stages(spec: ArchSpec, *, spacing: Sequence[float], patch_size: Grid) -> ArchSpec:
    """Return the spec of `fitted` for a spacing (mm) and a patch."""
    sizes = InputSizes(spacing=tuple(spacing), patch_size=tuple(patch_size))
    return fitted(spec, sizes).spec


def fitted(spec: ArchSpec, sizes: InputSizes) -> FittedStages:
    """Return the spec with stages, strides and kernels per axis that suit spacing and patch.

    A stage keeps its largest stride on the axes whose spacing is below twice the finest one, and
    has stride 1 on the others, and on axes that would fall below 4 positions. A large stride is
    taken in steps of its prime factors, so that axes may join on the way; its kernel shrinks where
    the stride does. Kernels are 1 along an axis until its spacing is comparable, or it is strided;
    those of the last stage stay. A decoder that states a kernel has at every level those axes that
    the stage of that grid has.

    A trailing stage that strode, and no longer does along any axis, is dropped if an earlier one
    that stays has the same mixer, the same block and the same mixer behind blocks: equal in kind
    and every field, a kernel by its largest axis; widths, depths and all other parts may differ.
    What the decoder says level by level loses its entry, and a bottleneck's width keeps its ratio
    to the last stage's where that is an integer. Heads that would no longer sit on different grids
    are left out.

    What a spec does not state stays: kernels in GSC, CMMB and the mix FFN.

    Source: see above. Deviation: an axis that is strided never has kernel 1, which nnU-Net
    allows where a finer axis is too short to pool, and which would skip positions.

    Raises:
        SpecError: spacing or patch has another number of axes than what the spec says per axis, or
            than each other.
    """
    patch = spec.patch_size if sizes.patch_size is None else sizes.patch_size
    spacing = sizes.spacing or (1.0,) * len(patch)
    if len(spacing) != len(patch) or not all(0 < size < math.inf for size in spacing):
        raise SpecError(
            f"must be {len(patch)} sizes in mm, one per axis of the patch, but is {list(spacing)}",
            field="spacing",
        )
    if not spec.encoder.stages:  # a library's: its strides are its own
        return FittedStages(spec, spec, tuple(spacing), (), ())
    walk = _Walk(spacing, patch)
    places = [walk.enter(1)]  # the input's
    for index, stage in enumerate(spec.encoder.stages):
        try:
            places.append(walk.enter(max(stage.downsample.strides(len(patch)))))
        except SpecError as error:
            raise error.below(f"encoder.stages.{index}.downsample") from None
    own = places[1:]
    trailing = _trailing(spec.encoder.stages, own)
    dropped = _repeated(spec.encoder.stages, trailing)
    stay = [index for index in range(len(own)) if index not in dropped]
    tree = spec.tree()
    for index in stay:
        try:
            _fit_stage(tree["encoder"]["stages"][index], own[index], last=index == stay[-1])
        except SpecError as error:
            raise error.below(f"encoder.stages.{index}") from None
    _fit_decoder(spec, tree["decoder"], stay, places)
    tree["encoder"]["stages"] = [tree["encoder"]["stages"][index] for index in stay]
    if dropped:
        tree["encoder"]["stages"][-1]["skip"]["tap"] = "after"  # a last stage has no other
    grids = [places[0].grid, *(own[index].grid for index in stay)]
    return FittedStages(
        before=spec,
        spec=_with_possible_heads(load(tree), grids),
        spacing=tuple(spacing),
        dropped=tuple(dropped),
        kept=tuple(index for index in trailing if index not in dropped),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """A stage on the way down: its stride per axis, its grid, and the axes kernels extend along.

    `full` is the stride that the spec asks for.
    """

    full: int
    stride: Grid
    grid: Grid
    wide: Axes


class _Walk:
    """Where we are on the way down: spacing (mm) and grid; which axes kernels extend along."""

    def __init__(self, spacing: Sequence[float], grid: Grid) -> None:
        self.spacing, self.grid = list(spacing), list(grid)
        self.comparable = [False] * len(grid)
        self._compare()

    def enter(self, stride: int) -> _Place:
        """Return the stage's place, after striding by as much of it as suits each axis."""
        taken = [1] * len(self.grid)
        for factor in _prime_factors(stride):
            for axis in self._poolable(factor):
                taken[axis] *= factor
                self.spacing[axis] *= factor
                self.grid[axis] = math.ceil(self.grid[axis] / factor)
                self.comparable[axis] = True
            self._compare()
        return _Place(stride, tuple(taken), tuple(self.grid), tuple(self.comparable))

    def _compare(self) -> None:
        finest = min(self.spacing)
        for axis, spacing in enumerate(self.spacing):
            self.comparable[axis] |= spacing / finest < 2

    def _poolable(self, factor: int) -> list[int]:
        """Return the axes that may be strided; a last one only while it has some length to lose."""
        long = [axis for axis, size in enumerate(self.grid) if size >= factor * _MIN_GRID]
        finest = min((self.spacing[axis] for axis in long), default=0.0)
        axes = [axis for axis in long if self.spacing[axis] / finest < 2]
        if len(axes) == 1 and self.grid[axes[0]] < (factor + 1) * _MIN_GRID:
            return []
        return axes


def _trailing(stages: Sequence[StageSpec], places: Sequence[_Place]) -> list[int]:
    """Return the numbers of the stages at the end that strode and no longer do."""
    found: list[int] = []
    for index in reversed(range(len(stages))):
        if places[index].full == 1 or any(step > 1 for step in places[index].stride):
            break
        found.insert(0, index)
    return found


def _repeated(stages: Sequence[StageSpec], trailing: Sequence[int]) -> list[int]:
    """Return those of the trailing stages whose mixer and block an earlier one has that stays."""
    seen = [_parts(stage) for stage in stages[: len(stages) - len(trailing)]]
    found = []
    for index in trailing:
        parts = _parts(stages[index])
        if parts in seen:
            found.append(index)
        seen.append(parts)
    return found


def _parts(stage: StageSpec) -> list[dict[str, Any]]:
    """Return mixer, block and what mixes behind it, as they are compared."""
    found = [one.model_dump() for one in (*mixers_in(stage.mixer), stage.block)]
    if isinstance(stage.post, MixerPostSpec):
        found.append(stage.post.model_dump())
    for part in found:
        if "kernel_size" in part:
            part["kernel_size"] = _largest(part["kernel_size"])
    return found


def _fit_stage(written: dict[str, Any], place: _Place, *, last: bool) -> None:
    """Write strides and kernels into the raw tree of a stage."""
    downsample, wide = written["downsample"], tuple(last or axis for axis in place.wide)
    size = _largest(downsample["kernel_size"])
    kernel = tuple(
        _strided_kernel(size, step, place.full) if axis else 1
        for step, axis in zip(place.stride, wide, strict=True)
    )
    _set_axes(downsample, "stride", place.stride, "downsample")
    _set_axes(downsample, "kernel_size", kernel, "downsample")
    for name, whole in written.items():
        if name == "downsample":
            continue
        for path, part in walk(whole, (name,)):
            if isinstance(part, dict) and part.get("kernel_size") is not None:
                largest = _largest(part["kernel_size"])
                axes = tuple(largest if axis else 1 for axis in wide)
                _set_axes(part, "kernel_size", axes, dotted(path))


def _fit_decoder(
    spec: ArchSpec, written: dict[str, Any], stay: Sequence[int], places: Sequence[_Place]
) -> None:
    """Write kernels per level into the raw tree of a decoder, and take dropped levels out.

    `places` has the input before the stages. The coarsest skip is no level.
    """
    stages, offset = spec.encoder.stages, int(spec.decoder.takes_input)
    tapped = [index for index, stage in enumerate(stages) if stage.skip.tap != "none"]
    count = len(tapped) - 1 + offset
    kept = [index for index in stay[:-1] if index in tapped]
    levels = [*range(offset), *(tapped.index(index) + offset for index in kept)]
    for field, value in written.items():
        if isinstance(value, list) and len(value) == count and field != "kernel_size":
            written[field] = [value[level] for level in levels]
    bottleneck = written.get("bottleneck_width")
    if bottleneck is not None:
        before, after = stages[-1].width, stages[stay[-1]].width
        if bottleneck * after % before == 0:
            written["bottleneck_width"] = bottleneck * after // before
    if "kernel_size" in written:
        wide = [*(places[0].wide for _ in range(offset)), *(places[i + 1].wide for i in kept)]
        written["kernel_size"] = _level_kernels(written["kernel_size"], count, levels, wide)


def _level_kernels(value: Any, count: int, levels: Sequence[int], wide: Sequence[Axes]) -> Any:
    """Return what a decoder of `count` levels writes as its kernels, for the levels that stay.

    One for all stays one for all where it can; what cannot be right is left for the plan to refuse.
    """
    by_level = isinstance(value, list) and any(isinstance(entry, list) for entry in value)
    if by_level and len(value) != count:
        return value
    entries = [value[level] for level in levels] if by_level else [value] * len(levels)
    if not entries:
        return value[0] if by_level else value
    if any(isinstance(entry, list) and len(entry) != len(wide[0]) for entry in entries):
        return value
    now = [
        [_largest(entry) if axis else 1 for axis in axes]
        for entry, axes in zip(entries, wide, strict=True)
    ]
    before = [entry if isinstance(entry, list) else [entry] * len(wide[0]) for entry in entries]
    if now == before and (not by_level or len(levels) == count):
        return value
    if any(row != now[0] for row in now):
        return now
    return now[0][0] if len(set(now[0])) == 1 else now[0]


def _strided_kernel(size: int, stride: int, full: int) -> int:
    """Return the kernel along an axis, which shrinks where the stride is not the full one.

    Patches that do not overlap stay so. Other kernels become odd, as a stride of 1 needs.
    """
    if stride == full:
        return size
    if size == full:
        return stride
    smaller = 1 + math.ceil((size - 1) * stride / full)
    return smaller + 1 - smaller % 2


def _largest(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else max(size)


def _set_axes(part: dict[str, Any], field: str, value: Grid, name: str) -> None:
    """Write a value per axis; what the spec says already stays as it is written."""
    written = part[field]
    before = tuple(written) if isinstance(written, list) else written
    if per_axis(before, len(value), where=f"{name}.{field}") != value:
        part[field] = list(value)


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors


def _with_possible_heads(spec: ArchSpec, grids: Sequence[Grid]) -> ArchSpec:
    """Return the spec with no more heads than its decoder has different grids.

    `grids` are those of the input and of every stage.
    """
    widths = [spec.in_channels, *(stage.width for stage in spec.encoder.stages)]
    taken = [True, *(stage.skip.tap != "none" for stage in spec.encoder.stages)]
    shapes = tuple(
        StageShape(w, grid) for w, grid, one in zip(widths, grids, taken, strict=True) if one
    )
    features = spec.decoder.feature_shapes(shapes if spec.decoder.takes_input else shapes[1:])
    possible = len(list(groupby(at.grid for at in features)))
    heads = min(spec.deep_supervision.heads, possible)
    return spec.model_copy(
        update={"deep_supervision": spec.deep_supervision.model_copy(update={"heads": heads})}
    )
