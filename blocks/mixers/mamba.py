"""Mamba over the flattened grid, reduced if asked, in one or two directions."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blocks.base import Axes, Grid, Kernel, LayerSpec, StageShape, State, per_axis
from blocks.layers.conv import patch_conv
from blocks.layers.norm import ChannelLayerNorm
from blocks.layers.resize import resize
from blocks.layers.scan_branch import ScanBranch, scan_branches, scan_elements
from blocks.scan.orders import FORWARD, REVERSE

_NAMES = {FORWARD: "forward", REVERSE: "reverse"}


class MambaMixerSpec(LayerSpec):
    """Mix all positions along the flattened grid by a selective state-space scan.

    `directions: 2` adds a reversed scan with parameters of its own; projections and gate are
    shared. `reduction` r scans fewer tokens, r times fewer per axis: those of a convolution with
    kernel = stride = r and a layer norm. The result is interpolated to the grid.
    """

    kind: Literal["mamba"] = "mamba"
    d_state: State = 16
    d_conv: Kernel = 4
    expand: State = 2
    directions: Annotated[int, Field(ge=1, le=2)] = 1
    reduction: Axes = 1

    def divisor(self, ndim: int) -> Grid:
        return per_axis(self.reduction, ndim, where="reduction")

    def largest(self, at: StageShape) -> int:
        reduction = math.prod(self.divisor(at.ndim))
        scanned = scan_elements(
            self, at.channels, at.positions // reduction, directions=self.directions
        )
        return max(at.channels**2 * reduction, scanned)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return MambaMixer(
            at.channels,
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            orders=(FORWARD, REVERSE)[: self.directions],
            reduction=self.divisor(at.ndim),
        )


class MambaMixer(nn.Module):
    """Selective scan with a gate; tokens are read in row-major order (D, H, W).

    Source: Mamba, arXiv 2312.00752, section 3.4; two directions as in Vim, arXiv 2401.09417,
    algorithm 1, but with one shared gate after the sum, which gives the same result. Reduction: a
    reading of the N/r tokens of SegMaFormer, arXiv 2603.22002, whose text was not read; how the
    result gets back to the grid is our choice.
    """

    def __init__(
        self,
        channels: int,
        *,
        d_state: int,
        d_conv: int,
        expand: int,
        orders: tuple[int, ...],
        reduction: Grid,
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.orders = orders
        self.reduce = nn.Sequential()
        if math.prod(reduction) > 1:
            self.reduce.append(patch_conv(channels, channels, stride=reduction))
            self.reduce.append(ChannelLayerNorm(channels))
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.branches = nn.ModuleList(
            ScanBranch(inner, d_state=d_state, d_conv=d_conv, dt_rank=math.ceil(channels / 16))
            for _ in orders
        )
        self.out_proj = nn.Linear(inner, channels, bias=False)

    @property
    def directions(self) -> dict[str, nn.Module]:
        names = [_NAMES[order] for order in self.orders]
        return dict(zip(names, self.branches, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        reduced: Tensor = self.reduce(x)
        tokens = reduced.flatten(2).transpose(1, 2)
        inner, z = self.in_proj(tokens).chunk(2, dim=-1)
        y = scan_branches(self.branches, inner, z, self.orders)
        out: Tensor = self.out_proj(y)
        return resize(out.transpose(1, 2).reshape(reduced.shape), tuple(x.shape[2:]))
