"""Two 1x1 convolutions around an activation."""

from torch import nn

from blocks.base import StageShape
from blocks.layers.conv import pointwise
from blocks.layers.grn import GlobalResponseNorm


def perceptron(in_channels: int, hidden: StageShape, out_channels: int, *, grn: bool) -> nn.Module:
    """Return a module (B, in, *grid) -> (B, out, *grid): widen, GELU, narrow.

    `grn` normalises what stands between them by the global response.
    """
    width, ndim = hidden.channels, hidden.ndim
    return nn.Sequential(
        pointwise(in_channels, width, ndim),
        nn.GELU(),
        *([GlobalResponseNorm(hidden)] if grn else []),
        pointwise(width, out_channels, ndim),
    )
