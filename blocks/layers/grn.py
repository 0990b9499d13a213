"""Global response normalisation."""

import torch
from torch import Tensor, nn

from blocks.base import StageShape

_EPS = 1e-6


class GlobalResponseNorm(nn.Module):
    """Weigh each channel of (B, C, *grid) by its share of the response, beside the features.

    With n = |x| over the grid, divided by its mean over the channels: gamma n x + beta + x. Both
    start at zero, where nothing is changed.

    Source: ConvNeXt V2, arXiv 2301.00808, section 3.2.
    """

    def __init__(self, at: StageShape) -> None:
        super().__init__()
        shape = (1, at.channels, *(1,) * at.ndim)
        self.gamma = nn.Parameter(torch.zeros(shape))
        self.beta = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        axes = list(range(2, x.ndim))
        response = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=wide)
        share = (response / (response.mean(dim=1, keepdim=True) + _EPS)).to(x.dtype)
        out: Tensor = self.gamma * (x * share) + self.beta + x
        return out
