"""A residual unit with a stride as the entry of a stage."""

import math
from typing import Literal

from torch import nn

from blocks.base import Axes, Grid, SpecError, StageShape, per_axis
from blocks.downsample.entry import EntrySpec
from blocks.layers.act import Act
from blocks.layers.conv import odd_kernel
from blocks.layers.norm import Norm, check_norm
from blocks.layers.residual_unit import ResidualUnit


class ResidualDownsampleSpec(EntrySpec):
    """Enter a stage by two convolutions, the first with the stride, beside a 1x1 with the stride.

    Norm and activation follow each of the two, the second activation behind the sum.
    """

    kind: Literal["residual"] = "residual"
    kernel_size: Axes = 3
    stride: Axes = 2
    norm: Norm = "layer"
    act: Act = "leaky_relu"

    def strides(self, ndim: int) -> Grid:
        """Return the stride per axis."""
        return per_axis(self.stride, ndim, where="stride")

    def check(self, inp: StageShape, out: StageShape) -> None:
        kernel_size, stride = odd_kernel(self.kernel_size, inp.ndim), self.strides(inp.ndim)
        if any(k < s for k, s in zip(kernel_size, stride, strict=True)):
            raise SpecError(
                f"{list(kernel_size)} with stride {list(stride)} skips positions",
                field="kernel_size",
                suggestion="use an odd kernel >= stride",
            )
        check_norm(self.norm, out, field="norm")

    def largest(self, inp: StageShape, out: StageShape) -> int:
        """Return the elements of its largest tensor at batch 1, see `LayerSpec.largest`."""
        widest = max(inp.channels, out.channels)
        return out.channels * widest * math.prod(odd_kernel(self.kernel_size, inp.ndim))

    def build(self, inp: StageShape, out: StageShape) -> nn.Module:
        """Return a module (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid)."""
        return ResidualUnit(
            inp.channels,
            out,
            kernel_size=odd_kernel(self.kernel_size, inp.ndim),
            norm=self.norm,
            act=self.act,
            bias=True,
            stride=self.strides(inp.ndim),
            shortcut="conv",
        )
