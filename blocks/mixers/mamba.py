"""Mamba over the flattened grid, in one or two directions."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blocks.base import Count, LayerSpec, StageShape
from blocks.layers.scan_branch import ScanBranch, scan_branches
from blocks.scan.orders import FORWARD, REVERSE


class MambaMixerSpec(LayerSpec):
    """Mix all positions along the flattened grid by a selective state-space scan.

    `directions: 2` adds a reversed scan with parameters of its own; projections and gate are
    shared.
    """

    kind: Literal["mamba"] = "mamba"
    d_state: Count = 16
    d_conv: Count = 4
    expand: Count = 2
    directions: Annotated[int, Field(ge=1, le=2)] = 1

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return MambaMixer(
            at.channels,
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            orders=(FORWARD, REVERSE)[: self.directions],
        )


class MambaMixer(nn.Module):
    """Selective scan with a gate; tokens are read in row-major order (D, H, W).

    Source: Mamba, arXiv 2312.00752, section 3.4; two directions as in Vim, arXiv 2401.09417,
    algorithm 1, but with one shared gate after the sum, which gives the same result.
    """

    def __init__(
        self, channels: int, *, d_state: int, d_conv: int, expand: int, orders: tuple[int, ...]
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.orders = orders
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.branches = nn.ModuleList(
            ScanBranch(inner, d_state=d_state, d_conv=d_conv, dt_rank=math.ceil(channels / 16))
            for _ in orders
        )
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        inner, z = self.in_proj(tokens).chunk(2, dim=-1)
        y = scan_branches(self.branches, inner, z, self.orders)
        out: Tensor = self.out_proj(y)
        return out.transpose(1, 2).reshape(x.shape)
