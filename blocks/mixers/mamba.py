"""Mamba over the flattened grid, reduced if asked, in one or several orders."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blocks.base import (
    Added,
    Axes,
    Grid,
    Kernel,
    LayerSpec,
    SpecError,
    StageShape,
    State,
    per_axis,
)
from blocks.layers.conv import patch_conv
from blocks.layers.norm import ChannelLayerNorm
from blocks.layers.resize import resize
from blocks.layers.scan_branch import ScanBranch, scan_branches, scan_elements
from blocks.layers.scan_orders import OrderName, Orders, check_orders, scan_order


class MambaMixerSpec(LayerSpec):
    """Mix all positions along the flattened grid by a selective state-space scan.

    `directions: 2` adds a reversed scan with parameters of its own; projections and gate are
    shared. `orders` lists the scans instead: axes from the slowest to the fastest, so that `whd`
    runs along depth first, or the words of `tom`, where `inter_slice` is `hwd`; a minus sign reads
    from the last token to the first.

    `reduction` r scans fewer tokens, r times fewer per axis: those of a convolution with kernel =
    stride = r and a layer norm. The result is interpolated to the grid.
    """

    kind: Literal["mamba"] = "mamba"
    d_state: State = 16
    d_conv: Kernel = 4
    expand: State = 2
    directions: Annotated[int, Field(ge=1, le=2)] = 1
    reduction: Axes = 1
    orders: Annotated[Orders | None, Added(None)] = None

    @property
    def scans(self) -> tuple[OrderName, ...]:
        """Return the orders, or what the number of directions says."""
        both: tuple[OrderName, ...] = ("forward", "reverse")
        return self.orders or both[: self.directions]

    def check(self, at: StageShape) -> None:
        """Refuse orders that do not fit the grid, and both `orders` and `directions`.

        Raises:
            SpecError: it does.
        """
        check_orders(self.scans, at.ndim)
        if self.orders and self.directions > 1:
            raise SpecError(
                "2 directions and orders are two answers to the same question",
                field="directions",
                suggestion="leave directions at 1, or orders out",
                other="orders",
            )

    def divisor(self, ndim: int) -> Grid:
        return per_axis(self.reduction, ndim, where="reduction")

    def largest(self, at: StageShape) -> int:
        reduction = math.prod(self.divisor(at.ndim))
        scanned = scan_elements(
            self, at.channels, at.positions // reduction, directions=len(self.scans)
        )
        return max(at.channels**2 * reduction, scanned)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return MambaMixer(
            at.channels,
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            orders=self.scans,
            reduction=self.divisor(at.ndim),
        )


class MambaMixer(nn.Module):
    """Selective scan with a gate; tokens are read in row-major order (D, H, W), or as `orders` say.

    Source: Mamba, arXiv 2312.00752, section 3.4; two directions as in Vim, arXiv 2401.09417,
    algorithm 1, but with one shared gate after the sum, which gives the same result; `hw, wh,
    -hw, -wh` are the four of VMamba, arXiv 2401.10166. Reduction: a
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
        orders: tuple[OrderName, ...],
        reduction: Grid,
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.order_names = orders
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
        return dict(zip(self.order_names, self.branches, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        reduced: Tensor = self.reduce(x)
        tokens = reduced.flatten(2).transpose(1, 2)
        inner, z = self.in_proj(tokens).chunk(2, dim=-1)
        orders = [scan_order(name, tuple(reduced.shape[2:])) for name in self.order_names]
        y = scan_branches(self.branches, inner, z, orders)
        out: Tensor = self.out_proj(y)
        return resize(out.transpose(1, 2).reshape(reduced.shape), tuple(x.shape[2:]))
