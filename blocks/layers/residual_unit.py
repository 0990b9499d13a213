"""The post-activation residual unit of U-shaped decoders."""

from torch import Tensor, nn

from blocks.base import Grid, StageShape
from blocks.layers.act import Act, build_act
from blocks.layers.conv import conv, pointwise
from blocks.layers.norm import build_norm


class ResidualUnit(nn.Module):
    """Compute act(norm(conv(act(norm(conv(x))))) + shortcut(x)): (B, in, *grid) -> (B, C, *grid).

    The shortcut is the identity, or norm(1x1 convolution) where the channels change.

    Source: UNETR, arXiv 2103.10504, section 3.1; github.com/Project-MONAI/MONAI 1.6.1,
    monai/networks/blocks/dynunet_block.py, `UnetResBlock`.
    """

    def __init__(
        self, in_channels: int, at: StageShape, *, kernel_size: Grid, norm: str, act: Act
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, at.channels, kernel_size=kernel_size, bias=False)
        self.norm1 = build_norm(norm, at)
        self.conv2 = conv(at.channels, at.channels, kernel_size=kernel_size, bias=False)
        self.norm2 = build_norm(norm, at)
        self.shortcut = (
            nn.Identity()
            if in_channels == at.channels
            else nn.Sequential(
                pointwise(in_channels, at.channels, at.ndim, bias=False), build_norm(norm, at)
            )
        )
        self.act = build_act(act)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.norm1(self.conv1(x)))
        out: Tensor = self.act(self.norm2(self.conv2(hidden)) + self.shortcut(x))
        return out
