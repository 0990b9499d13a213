"""Axial rotary position embedding of queries and keys.

Kept apart from the other layers because importing timm takes seconds; import this when used.
"""

import torch
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat
from torch import Tensor, nn

from blocks.base import Grid


class AxialRope(nn.Module):
    """Rotate (B, heads, L, head_dim) by each token's position: one share of bands per axis.

    Dot products of two rotated tensors depend on differences of position only. Positions count
    grid steps from 0, tokens are in row-major order, and pairs are interleaved.

    timm's class assumes two axes and uses dim // 4 bands on each; the dim given to it here is
    4 bands per head_dim / (2 ndim), which gives the right width in three dimensions too.

    Source: arXiv 2104.09864, section 3.2.2; axial as in arXiv 2403.13298, section 3.1; timm 1.0.22
    timm/layers/pos_embed_sincos.py.
    """

    def __init__(self, head_dim: int, *, ndim: int) -> None:
        super().__init__()
        self.table = RotaryEmbeddingCat(4 * (head_dim // (2 * ndim)), in_pixels=False)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        table = self.table.get_embed(list(grid))
        wide = torch.promote_types(x.dtype, table.dtype)
        rotated: Tensor = apply_rot_embed_cat(x.to(wide), table)
        return rotated.to(x.dtype)
