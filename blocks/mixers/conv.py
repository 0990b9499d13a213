"""Convolution as a mixer."""

import math
from typing import Annotated, Literal

from torch import nn

from blocks.base import Added, Axes, LayerSpec, StageShape
from blocks.layers.act import ActOrNone, build_act
from blocks.layers.conv import conv, odd_kernel


class ConvMixerSpec(LayerSpec):
    """Mix neighbours with one dense convolution and an activation, where `act` names one."""

    kind: Literal["conv"] = "conv"
    kernel_size: Axes = 3
    act: ActOrNone = "leaky_relu"
    bias: Annotated[bool, Added(True)] = True

    def check(self, at: StageShape) -> None:
        odd_kernel(self.kernel_size, at.ndim)

    def largest(self, at: StageShape) -> int:
        return at.channels**2 * math.prod(odd_kernel(self.kernel_size, at.ndim))

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        kernel_size = odd_kernel(self.kernel_size, at.ndim)
        return nn.Sequential(
            conv(at.channels, at.channels, kernel_size=kernel_size, bias=self.bias),
            build_act(self.act),
        )
