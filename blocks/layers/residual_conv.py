"""The pre-activation residual unit of decoders."""

from torch import Tensor, nn

from blocks.base import Grid, StageShape
from blocks.layers.act import Act, build_act
from blocks.layers.conv import conv
from blocks.layers.norm import build_norm


class ResidualConv(nn.Module):
    """Add two norm-activation-convolution steps to the input: (B, C, *grid) -> same.

    Source: SegResNet's residual block, arXiv 1810.11654, section 2.1.
    """

    def __init__(self, at: StageShape, *, kernel_size: Grid, norm: str, act: Act) -> None:
        super().__init__()
        self.norm1 = build_norm(norm, at)
        self.conv1 = conv(at.channels, at.channels, kernel_size=kernel_size, bias=False)
        self.norm2 = build_norm(norm, at)
        self.conv2 = conv(at.channels, at.channels, kernel_size=kernel_size, bias=False)
        self.act = build_act(act)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv1(self.act(self.norm1(x)))
        hidden = self.conv2(self.act(self.norm2(hidden)))
        return x + hidden
