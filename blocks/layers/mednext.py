"""MedNeXt's blocks between two grids, and on one."""

import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Grid, StageShape
from blocks.layers.conv import ThinnedConv, conv, spreading_conv
from blocks.layers.norm import build_norm
from blocks.layers.perceptron import perceptron


class MedNeXtStep(nn.Module):
    """Compute perceptron(norm(depthwise(x))) + shortcut(x): (B, C, *grid) -> (B, out, *grid').

    `near` zeros per axis are put before the result.

    Source: MedNeXt, arXiv 2303.09975, section 2.1 and figure 1;
    github.com/Project-MONAI/MONAI 1.6.1, monai/networks/blocks/mednext_block.py.
    """

    def __init__(
        self,
        *,
        depthwise: nn.Module,
        norm: nn.Module,
        mlp: nn.Module,
        shortcut: nn.Module,
        near: Grid,
    ) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.norm = norm
        self.mlp = mlp
        self.shortcut = shortcut
        self.pads = [pad for size in reversed(near) for pad in (size, 0)]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm(self.depthwise(x))) + self.shortcut(x)
        return F.pad(out, self.pads) if any(self.pads) else out


def mednext_block(
    at: StageShape, *, kernel_size: Grid, norm: str, ratio: int, grn: bool
) -> MedNeXtStep:
    """Return the residual block on one grid: (B, C, *grid) -> same."""
    width = at.channels
    return MedNeXtStep(
        depthwise=conv(width, width, kernel_size=kernel_size, groups=width),
        norm=build_norm(norm, at),
        mlp=perceptron(width, StageShape(ratio * width, at.grid), width, grn=grn),
        shortcut=nn.Identity(),
        near=(0,) * at.ndim,
    )


def mednext_down(
    inp: StageShape, out: StageShape, *, kernel_size: Grid, stride: Grid, norm: str, ratio: int
) -> MedNeXtStep:
    """Return the block from a grid n to n / stride."""
    width = inp.channels
    return MedNeXtStep(
        depthwise=conv(width, width, kernel_size=kernel_size, stride=stride, groups=width),
        norm=build_norm(norm, StageShape(width, out.grid)),
        mlp=perceptron(width, StageShape(ratio * width, out.grid), out.channels, grn=False),
        shortcut=ThinnedConv(width, out.channels, stride=stride),
        near=(0,) * inp.ndim,
    )


def mednext_up(
    coarse: StageShape, fine: StageShape, *, kernel_size: Grid, norm: str, ratio: int, grn: bool
) -> MedNeXtStep:
    """Return the block from a grid n to n * stride, whose first positions are zeros."""
    width, stride = coarse.channels, gap(coarse, fine)
    spread = spread_grid(coarse, fine)
    return MedNeXtStep(
        depthwise=spreading_conv(
            width, width, kernel_size=kernel_size, stride=stride, groups=width
        ),
        norm=build_norm(norm, StageShape(width, spread)),
        mlp=perceptron(width, StageShape(ratio * width, spread), fine.channels, grn=grn),
        shortcut=spreading_conv(
            width, fine.channels, kernel_size=(1,) * coarse.ndim, stride=stride
        ),
        near=tuple(step - 1 for step in stride),
    )


def gap(coarse: StageShape, fine: StageShape) -> Grid:
    """Return by what the finer grid is larger, per axis."""
    return tuple(f // c for f, c in zip(fine.grid, coarse.grid, strict=True))


def spread_grid(coarse: StageShape, fine: StageShape) -> Grid:
    """Return the grid on which an enlarging block normalises: (n - 1) * stride + 1."""
    return tuple((n - 1) * s + 1 for n, s in zip(coarse.grid, gap(coarse, fine), strict=True))
