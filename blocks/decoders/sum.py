"""The summation decoder: skips are added, so no concatenated tensor is ever held."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor, nn

from blocks.base import Added, StageShape
from blocks.decoders.decoder import Decoder, DecoderSpec, Heads, Skips
from blocks.decoders.levels import LevelCountsOrZero, LevelKernels, level_counts, level_kernels
from blocks.layers.act import Act
from blocks.layers.conv import pointwise
from blocks.layers.norm import Norm
from blocks.layers.residual_conv import ResidualConv
from blocks.layers.resize import resize


class SumDecoderSpec(DecoderSpec):
    """Go up level by level: project, interpolate, add the skip, refine by residual convolutions.

    Widths are those of the stages. `kernel_size` and `num_blocks`, the number of residual
    convolutions, hold for all levels, or are lists with one entry per level, fine to coarse.
    """

    kind: Literal["sum"] = "sum"
    norm: Norm = "layer"
    act: Act = "relu"
    num_blocks: LevelCountsOrZero = 1
    kernel_size: Annotated[LevelKernels, Added(3)] = 3

    def check_levels(self, skips: Skips) -> None:
        level_kernels(self.kernel_size, len(skips) - 1, skips[0].ndim)
        level_counts(self.num_blocks, len(skips) - 1, field="num_blocks")

    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        return skips[:-1] or skips

    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        return [("norm", self.norm, at) for at in skips[:-1]]

    def num_steps(self, skips: Skips) -> int:
        return sum(level_counts(self.num_blocks, len(skips) - 1, field="num_blocks"))

    def largest_inside(self, skips: Skips) -> int:
        kernels = level_kernels(self.kernel_size, len(skips) - 1, skips[0].ndim)
        counts = level_counts(self.num_blocks, len(skips) - 1, field="num_blocks")
        found = [0]
        for (fine, coarse), kernel, count in zip(pairwise(skips), kernels, counts, strict=True):
            refined = fine.channels**2 * math.prod(kernel) if count else 0
            found += [refined, fine.channels * coarse.channels]
        return max(found)

    def build(self, skips: Skips, heads: Heads) -> "SumDecoder":
        return SumDecoder(skips, spec=self, heads=heads)


class SumDecoder(Decoder):
    """Add each skip to the interpolated features from below.

    Source: SegResNet, arXiv 1810.11654, section 2.2 (decoder); used by SegResMamba.
    """

    def __init__(self, skips: Skips, *, spec: SumDecoderSpec, heads: Heads) -> None:
        super().__init__(spec.feature_shapes(skips), spec=spec, heads=heads)
        norm, act = spec.norm, spec.act
        levels = list(pairwise(skips))
        kernels = level_kernels(spec.kernel_size, len(levels), skips[0].ndim)
        counts = level_counts(spec.num_blocks, len(levels), field="num_blocks")
        self.projections = nn.ModuleList(
            pointwise(coarse.channels, fine.channels, fine.ndim, bias=False)
            for fine, coarse in levels
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualConv(fine, kernel_size=kernel_size, norm=norm, act=act)
                    for _ in range(count)
                )
            )
            for (fine, _), kernel_size, count in zip(levels, kernels, counts, strict=True)
        )

    def features(self, skips: list[Tensor]) -> list[Tensor]:
        x, found = skips[-1], []
        for level in reversed(range(len(self.projections))):
            up = resize(self.projections[level](x), tuple(skips[level].shape[2:]))
            x = self.blocks[level](up + skips[level])
            found.append(x)
        return found[::-1] or skips
