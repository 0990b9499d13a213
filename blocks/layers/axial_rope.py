"""Axial rotary position embedding of queries and keys.

Kept apart from the other layers because importing timm takes seconds; import this when used.
"""

import torch
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat
from torch import Tensor, nn

from blocks.base import Grid


class AxialRope(nn.Module):
    """Rotate (B, heads, L, head_dim) by each token's position: one share of bands per axis.

    With n axes, the first 2n (head_dim // 2n) channels are rotated and the rest stay as they are;
    the slowest band of an axis turns by almost 1 / theta per position. Dot products of two rotated
    tensors depend on differences of position only. Tokens are in row-major order, and pairs are
    interleaved. Positions count steps of the grid from 0; those of a grid reduced by a `step` per
    axis are the centres of its cells, in steps of the grid that was reduced.

    timm's class assumes two axes and uses dim // 4 bands on each; the dim given to it here is
    4 bands per head_dim / (2 ndim), which gives the right width in three dimensions too.

    Source: arXiv 2104.09864, section 3.2.2; axial as in arXiv 2403.13298, section 3.1; timm 1.0.22
    timm/layers/pos_embed_sincos.py.
    """

    def __init__(self, head_dim: int, *, ndim: int, theta: float) -> None:
        super().__init__()
        self.num_bands = head_dim // (2 * ndim)
        self.table = RotaryEmbeddingCat(4 * self.num_bands, temperature=theta, in_pixels=False)

    def forward(self, x: Tensor, grid: Grid, step: Grid | None = None) -> Tensor:
        table = self.table.get_embed(list(grid)) if step is None else self._table(grid, step)
        first, rest = x.tensor_split([2 * self.num_bands * len(grid)], dim=-1)
        wide = torch.promote_types(x.dtype, table.dtype)
        rotated: Tensor = apply_rot_embed_cat(first.to(wide), table)
        rotated = rotated.to(x.dtype)
        return torch.cat([rotated, rest], dim=-1) if rest.shape[-1] else rotated

    def _table(self, grid: Grid, step: Grid) -> Tensor:
        """Return sines and cosines as timm's class does, at the centres of cells."""
        bands = self.table.bands
        centres = [
            torch.arange(size, device=bands.device, dtype=bands.dtype) * width + (width - 1) / 2
            for size, width in zip(grid, step, strict=True)
        ]
        places = torch.stack(torch.meshgrid(centres, indexing="ij"), dim=-1)
        angles = (places[..., None] * bands).flatten(-2).flatten(0, -2).repeat_interleave(2, dim=-1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
