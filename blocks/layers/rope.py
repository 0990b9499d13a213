"""Rotary position embedding of features, without queries and keys."""

import torch
from torch import Tensor, nn

from blocks.base import SpecError, StageShape

THETA = 1e4


class EmbeddingRope(nn.Module):
    """Rotate channels of (B, C, *grid) by each position: one chunk of channels per axis.

    With n axes, chunk i has 2 (C // 2n) channels; its first half pairs with its second half, and
    pair j turns by (position along axis i) * theta^(-j / (C // 2n)). Channels left over stay as
    they are. Nothing is learned; downstream of a norm this is an absolute position code.

    Source: SegMaFormer, arXiv 2603.22002 (where it stands); github.com/duydngn89/nnUNet-Custom
    (the formula; whether that is the paper's code is unverified).
    """

    def __init__(self, at: StageShape) -> None:
        super().__init__()
        self.num_pairs = at.channels // (2 * at.ndim)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[2:]
        width = torch.promote_types(x.dtype, torch.float32)
        steps = torch.arange(self.num_pairs, device=x.device, dtype=width) / self.num_pairs
        bands = THETA**-steps
        parts = []
        for axis, size in enumerate(grid):
            angle = bands[:, None] * torch.arange(size, device=x.device, dtype=width)
            angle = angle.view(-1, *(size if i == axis else 1 for i in range(len(grid))))
            start = 2 * self.num_pairs * axis
            first, second = x[:, start : start + 2 * self.num_pairs].chunk(2, dim=1)
            sin, cos = angle.sin(), angle.cos()
            parts += [first * cos - second * sin, first * sin + second * cos]
        parts.append(x[:, 2 * self.num_pairs * len(grid) :])
        return torch.cat([part.to(x.dtype) for part in parts], dim=1)


def check_rope(at: StageShape, *, field: str) -> None:
    """Refuse a width too small to have one pair of channels per axis.

    Raises:
        SpecError: see above.
    """
    if at.channels < 2 * at.ndim:
        raise SpecError(
            f"one pair of channels per axis needs a width of at least {2 * at.ndim}, but it is "
            f"{at.channels}",
            field=field,
            suggestion="use rope: false or a larger width",
        )
