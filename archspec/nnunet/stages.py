"""Fit strides and kernels per axis to a dataset's spacing, as nnU-Net's planner does for its U-Net.

Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/experiment_planning/experiment_planners/
network_topology.py (2.8.1), `get_pool_and_conv_props`; the rule is followed, not the code.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import Grid, SpecError, per_axis

_MIN_GRID = 4
"""Positions below which nnU-Net pools no axis (`UNet_featuremap_min_edge_length`)."""


def fit_stages(spec: ArchSpec, *, spacing: Sequence[float], patch_size: Grid) -> ArchSpec:
    """Return the spec with strides and kernels per axis that suit the spacing (mm).

    A stage keeps its largest stride on the axes whose spacing is below twice the finest one, and
    has stride 1 on the others, and on axes that would fall below 4 positions. A large stride is
    taken in steps of its prime factors, so that axes may join on the way; its kernel shrinks where
    the stride does. Kernels are 1 along an axis until its spacing is comparable, or it is strided;
    those of the last stage stay.

    The number of stages stays. Heads that would no longer sit on different grids are left out.
    What a spec does not state stays: kernels in GSC, CMMB, the mix FFN and decoders.

    Source: see above. Deviation: an axis that is strided never has kernel 1, which nnU-Net
    allows where a finer axis is too short to pool, and which would skip positions.
    """
    walk = _Walk(spacing, patch_size)
    stages = spec.encoder.stages
    tree = spec.tree()
    for stage, written in zip(stages, tree["encoder"]["stages"], strict=True):
        full = max(stage.downsample.strides(len(patch_size)))
        stride = walk.enter(full)
        last = stage is stages[-1]
        wide = tuple(last or comparable for comparable in walk.comparable)
        _set_axes(written["downsample"], "stride", stride)
        for part in written.values():
            if isinstance(part, dict) and part.get("kernel_size") is not None:
                size = _largest(part["kernel_size"])
                _set_axes(part, "kernel_size", tuple(size if axis else 1 for axis in wide))
        size = _largest(stage.downsample.kernel_size)
        kernel = [
            _strided_kernel(size, step, full) if axis else 1
            for step, axis in zip(stride, wide, strict=True)
        ]
        _set_axes(written["downsample"], "kernel_size", tuple(kernel))
    return _with_possible_heads(load(tree), patch_size)


class _Walk:
    """Where we are on the way down: spacing (mm) and grid; which axes kernels extend along."""

    def __init__(self, spacing: Sequence[float], grid: Grid) -> None:
        self.spacing, self.grid = list(spacing), list(grid)
        self.comparable = [False] * len(grid)
        self._compare()

    def enter(self, stride: int) -> Grid:
        """Return the stride per axis, after striding by it."""
        taken = [1] * len(self.grid)
        for factor in _prime_factors(stride):
            for axis in self._poolable(factor):
                taken[axis] *= factor
                self.spacing[axis] *= factor
                self.grid[axis] = math.ceil(self.grid[axis] / factor)
                self.comparable[axis] = True
            self._compare()
        return tuple(taken)

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


def _set_axes(part: dict[str, Any], field: str, value: Grid) -> None:
    """Write a value per axis; what the spec says already stays as it is written."""
    written = part[field]
    before = tuple(written) if isinstance(written, list) else written
    if per_axis(before, len(value), where=field) != value:
        part[field] = list(value)


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors


def _with_possible_heads(spec: ArchSpec, patch_size: Grid) -> ArchSpec:
    """Return the spec with no more heads than its decoder has different grids."""
    one = spec.deep_supervision.model_copy(update={"heads": 1})
    try:
        planned = plan(
            spec.model_copy(update={"deep_supervision": one}), InputSizes(patch_size=patch_size)
        )
    except SpecError:  # whoever plans the network says what is wrong, with the dataset's sizes
        return spec
    features = spec.decoder.feature_shapes(planned.decoder_inputs)
    possible = len(list(groupby(at.grid for at in features)))
    heads = min(spec.deep_supervision.heads, possible)
    return spec.model_copy(
        update={"deep_supervision": spec.deep_supervision.model_copy(update={"heads": heads})}
    )
