"""ToM: tri-oriented Mamba over the flattened grid."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blocks.base import (
    Added,
    Count,
    Grid,
    Kernel,
    LayerSpec,
    NotWeights,
    SpecError,
    StageShape,
    State,
)
from blocks.layers.scan_branch import ScanBranch, scan_branches, scan_elements
from blocks.layers.scan_orders import OrderName, Orders, check_orders, is_forward, scan_order

Init = Literal["released", "mamba"]


class TomMixerSpec(LayerSpec):
    """Mix all positions by scans forward, in reverse, and across slices along depth.

    `num_slices` cuts the tokens into that many equal runs for the inter-slice order; left out, it
    is the depth of the grid at hand, so that runs are true slices at every input size.

    `orders` may also be axes from the slowest to the fastest, so that `whd` runs along depth first,
    with a minus sign from the last token to the first; `forward` is `dhw`, `reverse` is `-dhw`, and
    `inter_slice` is `hwd` while `num_slices` is left out.

    `init` says which scans start with Mamba's spread of time steps: `mamba` all of them, `released`
    the forward one alone, as in SegMamba's code. The steps of its others start 7 to 690 times as
    long, so compare with the mixer `mamba` under `mamba`.
    """

    kind: Literal["tom"] = "tom"
    d_state: State = 16
    d_conv: Kernel = 4
    expand: State = 2
    num_slices: Annotated[
        Count | None, Field(description="null takes as many slices as the grid is deep")
    ] = None
    orders: Orders = ("forward", "reverse", "inter_slice")
    init: Annotated[Init, NotWeights(), Added("released")] = "released"

    def check(self, at: StageShape) -> None:
        """Refuse orders that do not fit the grid, and slices that do not divide the tokens.

        Raises:
            SpecError: they do not.
        """
        check_orders(self.orders, at.ndim, slices=self.num_slices)
        tokens, slices = math.prod(at.grid), self.num_slices
        if slices is None or "inter_slice" not in self.orders or tokens % slices == 0:
            return
        divisors = _divisors(tokens)
        below = [n for n in divisors if n < slices][-1:]
        nearest = " or ".join(str(n) for n in below + [n for n in divisors if n > slices][:1])
        raise SpecError(
            f"{slices} slices along depth, axis 0 of grid {list(at.grid)}, must divide its "
            f"{tokens} tokens",
            field="num_slices",
            other="patch_size",
            suggestion=f"nearest: {nearest}, or null for the grid's depth, {at.grid[0]}",
        )

    def largest(self, at: StageShape) -> int:
        return scan_elements(self, at.channels, at.positions, directions=len(self.orders))

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return TomMixer(at.channels, spec=self)


def _divisors(number: int) -> list[int]:
    """Return what divides the number, in order; the number may have a dozen digits."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


class TomMixer(nn.Module):
    """Add the scans of all orders, each with parameters of its own; projections, gate are shared.

    With `init` `released`, only the forward scan starts with Mamba's spread of time steps: the
    others keep the default initialisation of nn.Linear in `dt_proj`, for parity with that code.

    Source: SegMamba, arXiv 2401.13560, section 2.2; github.com/ge-xing/SegMamba@cff3597,
    mamba/mamba_ssm/modules/mamba_simple.py.
    """

    def __init__(
        self,
        channels: int,
        *,
        spec: TomMixerSpec,
    ) -> None:
        super().__init__()
        inner = spec.expand * channels
        self.num_slices = spec.num_slices
        self.order_names: tuple[OrderName, ...] = spec.orders
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        branches = [
            ScanBranch(
                inner, d_state=spec.d_state, d_conv=spec.d_conv, dt_rank=math.ceil(channels / 16)
            )
            for _ in spec.orders
        ]
        for branch, name in zip(branches, spec.orders, strict=True):
            if spec.init == "released" and not is_forward(name):
                branch.dt_proj.reset_parameters()
        self.branches = nn.ModuleList(branches)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    @property
    def directions(self) -> dict[str, nn.Module]:
        return dict(zip(self.order_names, self.branches, strict=True))

    def orders_at(self, grid: Grid) -> tuple[int, ...]:
        """Return the scan orders, as `blocks.scan.orders` has them, for this grid.

        Raises:
            ValueError: the input is of another size than was planned, and slices do not divide it.
        """
        slices = grid[0] if self.num_slices is None else self.num_slices
        if self.num_slices and "inter_slice" in self.order_names and math.prod(grid) % slices:
            raise ValueError(
                f"num_slices: {slices} must divide the {math.prod(grid)} tokens of grid "
                f"{list(grid)}; use an input of the planned size, or num_slices: null"
            )
        return tuple(scan_order(name, grid, slices=self.num_slices) for name in self.order_names)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        inner, z = self.in_proj(tokens).chunk(2, dim=-1)
        y = scan_branches(self.branches, inner, z, self.orders_at(tuple(x.shape[2:])))
        out: Tensor = self.out_proj(y)
        return out.transpose(1, 2).reshape(x.shape)
