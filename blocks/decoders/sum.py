"""The summation decoder: skips are added, so no concatenated tensor is ever held."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor, nn

from blocks.base import Added, Grid, SpecError, StageShape
from blocks.decoders.decoder import Decoder, DecoderSpec, Heads, Skips
from blocks.decoders.levels import (
    LevelCounts,
    LevelCountsOrZero,
    LevelKernels,
    level_counts,
    level_kernels,
)
from blocks.layers.act import Act
from blocks.layers.conv import pointwise
from blocks.layers.mednext import mednext_block, mednext_up, spread_grid
from blocks.layers.norm import Norm
from blocks.layers.residual_conv import ResidualConv
from blocks.layers.resize import resize

_LEAVE_OUT = "leave it out"


@dataclass(frozen=True, slots=True)
class SumLevel:
    """One step up: the skip, what comes from below, and what the level is made of."""

    fine: StageShape
    coarse: StageShape
    kernel_size: Grid
    count: int
    ratio: int


class SumDecoderSpec(DecoderSpec):
    """Go up level by level: project, interpolate, add the skip, refine by residual convolutions.

    Widths are those of the stages. `kernel_size` and `num_blocks`, the number of residual
    convolutions, hold for all levels, or are lists with one entry per level, fine to coarse.
    `up: mednext` enlarges by MedNeXt's block with a transposed depth-wise convolution, in place of
    a projection and an interpolation; `block: mednext` refines by its blocks, which take their
    GELU for `act`. Both widen by `ratio`, one for all levels or one per level, and normalise by the
    global response where `grn` says so.
    """

    kind: Literal["sum"] = "sum"
    norm: Norm = "layer"
    act: Act = "relu"
    num_blocks: LevelCountsOrZero = 1
    kernel_size: Annotated[LevelKernels, Added(3)] = 3
    up: Annotated[Literal["interpolate", "mednext"], Added("interpolate")] = "interpolate"
    block: Annotated[Literal["residual", "mednext"], Added("residual")] = "residual"
    ratio: Annotated[LevelCounts, Added(2)] = 2
    grn: Annotated[bool, Added(False)] = False

    def check_levels(self, skips: Skips) -> None:
        self.levels(skips)
        if "mednext" in (self.up, self.block):
            return
        for field, given in (("ratio", self.ratio != 2), ("grn", self.grn)):
            if given:
                raise SpecError(
                    "goes with up: mednext or block: mednext", field=field, suggestion=_LEAVE_OUT
                )

    def levels(self, skips: Skips) -> list[SumLevel]:
        """Return what the levels are made of, fine to coarse.

        Raises:
            SpecError: lists of another length than there are levels.
        """
        count = len(skips) - 1
        return [
            SumLevel(*each)
            for each in zip(
                skips[:-1],
                skips[1:],
                level_kernels(self.kernel_size, count, skips[0].ndim),
                level_counts(self.num_blocks, count, field="num_blocks"),
                level_counts(self.ratio, count, field="ratio"),
                strict=True,
            )
        ]

    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        return skips[:-1] or skips

    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        found = [("norm", self.norm, at) for at in skips[:-1]]
        if self.up == "mednext":
            for fine, coarse in pairwise(skips):
                at = StageShape(coarse.channels, spread_grid(coarse, fine))
                found.append(("norm", self.norm, at))
        return found

    def num_steps(self, skips: Skips) -> int:
        return sum(level_counts(self.num_blocks, len(skips) - 1, field="num_blocks"))

    def largest_inside(self, skips: Skips) -> int:
        found = [0]
        for one in self.levels(skips):
            fine, coarse, kernel = one.fine, one.coarse, math.prod(one.kernel_size)
            found.append(fine.channels * coarse.channels)
            if self.up == "mednext":
                hidden = StageShape(one.ratio * coarse.channels, spread_grid(coarse, fine))
                widest = max(fine.channels, coarse.channels)
                found += [hidden.elements, hidden.channels * widest, coarse.channels * kernel]
            if one.count and self.block == "mednext":
                hidden = StageShape(one.ratio * fine.channels, fine.grid)
                found += [hidden.elements, hidden.channels * fine.channels, fine.channels * kernel]
            elif one.count:
                found.append(fine.channels**2 * kernel)
        return max(found)

    def build(self, skips: Skips, heads: Heads) -> "SumDecoder":
        return SumDecoder(skips, spec=self, heads=heads)


class SumDecoder(Decoder):
    """Add each skip to the interpolated features from below.

    Source: SegResNet, arXiv 1810.11654, section 2.2 (decoder); used by SegResMamba. With MedNeXt's
    blocks: arXiv 2303.09975, section 2.1.
    """

    def __init__(self, skips: Skips, *, spec: SumDecoderSpec, heads: Heads) -> None:
        super().__init__(spec.feature_shapes(skips), spec=spec, heads=heads)
        levels = spec.levels(skips)
        self.projections = nn.ModuleList(_up(level, spec) for level in levels)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_block(level, spec) for _ in range(level.count))) for level in levels
        )

    def features(self, skips: list[Tensor]) -> list[Tensor]:
        x, found = skips[-1], []
        for level in reversed(range(len(self.projections))):
            up = resize(self.projections[level](x), tuple(skips[level].shape[2:]))
            x = self.blocks[level](up + skips[level])
            found.append(x)
        return found[::-1] or skips


def _up(level: SumLevel, spec: SumDecoderSpec) -> nn.Module:
    """Return what takes features from below to the skip's width, at their own grid or its."""
    fine, coarse = level.fine, level.coarse
    if spec.up == "interpolate":
        return pointwise(coarse.channels, fine.channels, fine.ndim, bias=False)
    return mednext_up(
        coarse,
        fine,
        kernel_size=level.kernel_size,
        norm=spec.norm,
        ratio=level.ratio,
        grn=spec.grn,
    )


def _block(level: SumLevel, spec: SumDecoderSpec) -> nn.Module:
    at, kernel_size = level.fine, level.kernel_size
    if spec.block == "residual":
        return ResidualConv(at, kernel_size=kernel_size, norm=spec.norm, act=spec.act)
    return mednext_block(
        at, kernel_size=kernel_size, norm=spec.norm, ratio=level.ratio, grn=spec.grn
    )
