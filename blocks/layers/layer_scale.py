"""A learned factor per channel on a residual branch."""

import torch
from torch import Tensor, nn


class ChannelLayerScale(nn.Module):
    """Multiply each channel of (B, C, *grid) by its own parameter, which starts at `init`.

    timm's LayerScale with channels first, in any number of dimensions.

    Source: arXiv 2103.17239, section 2.2.
    """

    def __init__(self, channels: int, *, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(-1, *(1,) * (x.ndim - 2))
