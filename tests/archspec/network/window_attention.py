"""Self-attention inside windows of the grid: the mixer that test_adding_a_mixer.py adds."""

from math import prod
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Axes, Count, Grid, LayerSpec, SpecError, StageShape, per_axis


class WindowAttentionMixerSpec(LayerSpec):
    """Mix the positions of each window by attention.

    `window_size` must divide the grid, which `divisor` makes the plan check on every axis; left
    out, the window is the whole grid.
    """

    kind: Literal["window_attention"] = "window_attention"
    num_heads: Count = 1
    window_size: Axes | None = None

    divisor_field: ClassVar[str] = "window_size"

    def divisor(self, ndim: int) -> Grid:
        return per_axis(self.window_size or 1, ndim, where="window_size")

    def check(self, at: StageShape) -> None:
        if at.channels % self.num_heads:
            raise SpecError(
                f"{self.num_heads} must divide the width {at.channels}",
                field="num_heads",
                suggestion="use 1 or another divisor",
            )

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        window = None if self.window_size is None else self.divisor(at.ndim)
        return WindowAttention(at.channels, num_heads=self.num_heads, window=window)


class WindowAttention(nn.Module):
    """Attention among the positions of each window, in row-major order; windows do not overlap.

    Source: Swin, arXiv 2103.14030, section 3.2. Deviation: neither shifts nor a position bias.
    """

    def __init__(self, channels: int, *, num_heads: int, window: Grid | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *grid = x.shape
        window = self.window or tuple(grid)
        counts = [n // w for n, w in zip(grid, window, strict=True)]
        split = [size for pair in zip(counts, window, strict=True) for size in pair]
        axes = range(2, 2 + len(split))
        order = [0, *axes[::2], *axes[1::2], 1]  # batch, windows, positions in a window, channels
        parts = x.reshape(batch, channels, *split).permute(order)
        tokens = parts.reshape(batch * prod(counts), prod(window), channels)
        heads = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind())
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2)).reshape(parts.shape)
        return out.permute([order.index(i) for i in range(len(order))]).reshape(x.shape)
