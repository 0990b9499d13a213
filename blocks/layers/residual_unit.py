"""The post-activation residual unit of U-shaped networks."""

from typing import Literal

from torch import Tensor, nn

from blocks.base import Grid, StageShape
from blocks.layers.act import Act, build_act
from blocks.layers.conv import ThinnedConv, conv, pointwise
from blocks.layers.norm import build_norm

Shortcut = Literal["norm", "conv"]


class ResidualUnit(nn.Module):
    """Compute act(norm(conv(act(norm(conv(x))))) + shortcut(x)): (B, in, *grid) -> (B, C, *grid').

    The first convolution has the stride. The shortcut is the identity, or norm(1x1 convolution)
    where the channels change; with `shortcut: conv`, always a 1x1 convolution with the stride and a
    bias, and no norm.

    Source: UNETR, arXiv 2103.10504, section 3.1; github.com/Project-MONAI/MONAI 1.6.1,
    monai/networks/blocks/dynunet_block.py, `UnetResBlock`. With `shortcut: conv`: U-Mamba,
    github.com/bowang-lab/U-Mamba@5307397, umamba/nnunetv2/nets/UMambaBot_3d.py, `BasicResBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        at: StageShape,
        *,
        kernel_size: Grid,
        norm: str,
        act: Act,
        bias: bool = False,
        stride: Grid | None = None,
        shortcut: Shortcut = "norm",
    ) -> None:
        super().__init__()
        width = at.channels
        self.conv1 = conv(in_channels, width, kernel_size=kernel_size, stride=stride, bias=bias)
        self.norm1 = build_norm(norm, at)
        self.conv2 = conv(width, width, kernel_size=kernel_size, bias=bias)
        self.norm2 = build_norm(norm, at)
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "conv":
            self.shortcut = ThinnedConv(in_channels, width, stride=stride or (1,) * at.ndim)
        elif in_channels != width:
            self.shortcut = nn.Sequential(
                pointwise(in_channels, width, at.ndim, bias=False), build_norm(norm, at)
            )
        self.act = build_act(act)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.norm1(self.conv1(x)))
        out: Tensor = self.act(self.norm2(self.conv2(hidden)) + self.shortcut(x))
        return out
