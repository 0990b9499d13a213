"""Strided convolution into a stage; with a large kernel, the stem or a patch embedding."""

from torch import nn

from blocks.base import Axes, ComponentSpec, Grid, SpecError, StageShape, per_axis
from blocks.layers.conv import conv
from blocks.layers.norm import Norm, build_norm, check_norm


class DownsampleSpec(ComponentSpec):
    """Enter a stage by a convolution with a stride, then an optional norm."""

    kernel_size: Axes = 3
    stride: Axes = 2
    norm: Norm = "none"

    def strides(self, ndim: int) -> Grid:
        """Return the stride per axis."""
        return per_axis(self.stride, ndim, where="stride")

    def check(self, inp: StageShape, out: StageShape) -> None:
        """Refuse kernels that do not fit their stride.

        Raises:
            SpecError: an even kernel with stride 1 (the grid would shrink by one), or a kernel
                smaller than its stride (positions would be skipped); a norm that cannot work.
        """
        kernel_size = per_axis(self.kernel_size, inp.ndim, where="kernel_size")
        stride = self.strides(inp.ndim)
        for k, s in zip(kernel_size, stride, strict=True):
            if k < s or (k % 2 == 0 and s == 1):
                raise SpecError(
                    f"kernel_size: {list(kernel_size)} with stride {list(stride)} skips positions "
                    "or shifts the grid; use a kernel >= stride, odd where the stride is 1"
                )
        check_norm(self.norm, out, field="norm")

    def build(self, inp: StageShape, out: StageShape) -> nn.Module:
        """Return a module (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid)."""
        kernel_size = per_axis(self.kernel_size, inp.ndim, where="kernel_size")
        stride = self.strides(inp.ndim)
        return nn.Sequential(
            conv(inp.channels, out.channels, kernel_size=kernel_size, stride=stride),
            build_norm(self.norm, out),
        )
