"""The learned blend of a mixer with a convolution."""

import torch
from torch import Tensor, nn

from blocks.base import StageShape
from blocks.layers.conv import conv, pointwise
from blocks.layers.linear import ChannelLinear
from blocks.layers.norm import build_norm, check_norm

NORM = "instance_affine"


class ConvGate(nn.Module):
    """Compute g mixed + (1 - g) local, with a gate g in (0, 1) for each position and channel.

    `local` is what a depthwise convolution 3, norm, GELU and a 1x1 convolution make of the features
    that the mixer got; g = sigmoid(linear [mixed, local]).

    Source: the `hybrid` stages of SegMaFormer, arXiv 2603.22002, as in
    github.com/duydngn89/nnUNet-Custom@0292340, network_architecture/SegMaFormer.py (authorship
    unverified).
    """

    def __init__(self, at: StageShape) -> None:
        super().__init__()
        width = at.channels
        self.local = nn.Sequential(
            conv(width, width, kernel_size=(3,) * at.ndim, groups=width, bias=False),
            build_norm(NORM, at),
            nn.GELU(),
            pointwise(width, width, at.ndim, bias=False),
        )
        self.weigh = ChannelLinear(2 * width, width)

    def forward(self, mixed: Tensor, x: Tensor) -> Tensor:
        local: Tensor = self.local(x)
        gate: Tensor = torch.sigmoid(self.weigh(torch.cat([mixed, local], dim=1)))
        return gate * mixed + (1 - gate) * local


def check_conv_gate(at: StageShape, *, field: str) -> None:
    """Refuse a grid of one position, over which the norm has no statistics.

    Raises:
        SpecError: see above.
    """
    check_norm(NORM, at, field=field, instead="gate: none, ")
