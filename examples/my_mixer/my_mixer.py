"""StripMixer: positions of a strip along the last axis are mixed by one learned matrix."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from blocks.base import Grid, LayerSpec, StageShape, Width


class StripMixerSpec(LayerSpec):
    """Mix strips of `length` positions along the last axis, less a running mean per channel.

    The mean is state that training updates and prediction reads, as batch norm's is. A stage's grid
    must divide by `length` along that axis; archspec pads a patch that does not.
    """

    divisor_field: ClassVar[str] = "length"

    kind: Literal["strip"] = "strip"
    length: Width = 4

    def divisor(self, ndim: int) -> Grid:
        return (*(1,) * (ndim - 1), self.length)

    def largest(self, at: StageShape) -> int:
        return max(self.length**2, at.elements)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return StripMixer(at.channels, length=self.length, ndim=at.ndim)


class StripMixer(nn.Module):
    """Compute W (x - mean) for every strip and channel."""

    momentum = 0.1

    def __init__(self, channels: int, *, length: int, ndim: int) -> None:
        super().__init__()
        self.strip = nn.Linear(length, length)
        self.register_buffer("mean", torch.zeros(channels, *(1,) * ndim))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            axes = (0, *range(2, x.ndim))
            found = x.detach().mean(axes, dtype=torch.float32).view_as(self.mean)
            self.mean.lerp_(found, self.momentum)
        strips = (x - self.mean.to(x.dtype)).unflatten(-1, (-1, self.strip.in_features))
        return self.strip(strips).flatten(-2)
