"""Convolution as a mixer."""

import math
from typing import Annotated, Literal

from torch import nn

from blocks.base import Added, Axes, LayerSpec, StageShape, per_axis
from blocks.layers.act import ActOrNone, build_act
from blocks.layers.conv import conv, odd_kernel


class ConvMixerSpec(LayerSpec):
    """Mix neighbours with one convolution and an activation, where `act` names one.

    `groups: in` gives every channel a kernel of its own, which makes the convolution depth-wise.
    `dilation` is the distance of a kernel's positions.
    """

    kind: Literal["conv"] = "conv"
    kernel_size: Axes = 3
    act: ActOrNone = "leaky_relu"
    bias: Annotated[bool, Added(True)] = True
    groups: Annotated[Literal["dense", "in"], Added("dense")] = "dense"
    dilation: Annotated[Axes, Added(1)] = 1

    def check(self, at: StageShape) -> None:
        odd_kernel(self.kernel_size, at.ndim)
        per_axis(self.dilation, at.ndim, where="dilation")

    def largest(self, at: StageShape) -> int:
        each = 1 if self.groups == "in" else at.channels
        return at.channels * each * math.prod(odd_kernel(self.kernel_size, at.ndim))

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return nn.Sequential(
            conv(
                at.channels,
                at.channels,
                kernel_size=odd_kernel(self.kernel_size, at.ndim),
                groups=at.channels if self.groups == "in" else 1,
                bias=self.bias,
                dilation=per_axis(self.dilation, at.ndim, where="dilation"),
            ),
            build_act(self.act),
        )
