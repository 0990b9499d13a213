"""MedNeXt's down-sampling block as the entry of a stage."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from blocks.base import Axes, Grid, SpecError, StageShape, per_axis
from blocks.downsample.entry import EntrySpec
from blocks.layers.conv import odd_kernel
from blocks.layers.mednext import mednext_down
from blocks.layers.norm import Norm, check_norm


class MedNeXtDownsampleSpec(EntrySpec):
    """Enter a stage by MedNeXt's block: depth-wise convolution with a stride, norm, perceptron.

    The perceptron widens the input's channels by `ratio` and ends at the stage's width; a 1x1
    convolution with the stride is the shortcut beside all.
    """

    kind: Literal["mednext"] = "mednext"
    kernel_size: Axes = 3
    stride: Axes = 2
    ratio: Annotated[int, Field(gt=0, le=16)] = 2
    norm: Norm = "layer"

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
        check_norm(self.norm, StageShape(inp.channels, out.grid), field="norm")

    def largest(self, inp: StageShape, out: StageShape) -> int:
        """Return the elements of its largest tensor at batch 1, see `LayerSpec.largest`."""
        hidden = self.ratio * inp.channels
        kernel = math.prod(odd_kernel(self.kernel_size, inp.ndim))
        return max(hidden * max(inp.channels, out.channels, out.positions), inp.channels * kernel)

    def build(self, inp: StageShape, out: StageShape) -> nn.Module:
        """Return a module (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid)."""
        return mednext_down(
            inp,
            out,
            kernel_size=odd_kernel(self.kernel_size, inp.ndim),
            stride=self.strides(inp.ndim),
            norm=self.norm,
            ratio=self.ratio,
        )
