"""Convolution as a mixer."""

from typing import Literal

from torch import nn

from blocks.base import Axes, LayerSpec, SpecError, StageShape, per_axis
from blocks.layers.act import Act, build_act
from blocks.layers.conv import conv


class ConvMixerSpec(LayerSpec):
    """Mix neighbours with one dense convolution and an activation."""

    kind: Literal["conv"] = "conv"
    kernel_size: Axes = 3
    act: Act = "leaky_relu"

    def check(self, at: StageShape) -> None:
        kernel_size = per_axis(self.kernel_size, at.ndim, where="kernel_size")
        if any(k % 2 == 0 for k in kernel_size):
            raise SpecError(f"kernel_size: {list(kernel_size)} must be odd to keep the grid")

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        kernel_size = per_axis(self.kernel_size, at.ndim, where="kernel_size")
        return nn.Sequential(
            conv(at.channels, at.channels, kernel_size=kernel_size), build_act(self.act)
        )
