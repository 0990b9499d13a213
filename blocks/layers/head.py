"""The last step from decoder features to logits at patch size."""

from typing import Literal

from torch import Tensor, nn

from blocks.base import Grid
from blocks.layers.conv import pointwise, transposed_conv
from blocks.layers.resize import resize

HeadKind = Literal["conv", "transpose", "interpolate"]


class InterpolatedHead(nn.Module):
    """Predict at the feature grid, then interpolate the logits to the patch grid."""

    def __init__(self, in_channels: int, num_classes: int, *, ndim: int) -> None:
        super().__init__()
        self.conv = pointwise(in_channels, num_classes, ndim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return resize(self.conv(x), grid)


class ExactHead(nn.Module):
    """Predict at the patch grid directly: a 1x1 or a transposed convolution over the gap."""

    def __init__(self, in_channels: int, num_classes: int, *, gap: Grid) -> None:
        super().__init__()
        if all(step == 1 for step in gap):
            self.conv = pointwise(in_channels, num_classes, len(gap))
        else:
            self.conv = transposed_conv(in_channels, num_classes, stride=gap)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        logits: Tensor = self.conv(x)
        return logits


def build_head(kind: HeadKind, in_channels: int, num_classes: int, *, gap: Grid) -> nn.Module:
    """Return a head (features, patch grid) -> logits; `gap` = patch grid / feature grid."""
    if kind == "interpolate":
        return InterpolatedHead(in_channels, num_classes, ndim=len(gap))
    return ExactHead(in_channels, num_classes, gap=gap)
