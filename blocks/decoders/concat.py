"""The concatenation decoder: nnU-Net's, or UNETR's with residual units, also on the skips."""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Added, Grid, SpecError, StageShape, Width
from blocks.decoders.decoder import Decoder, DecoderSpec, Heads, Skips
from blocks.decoders.levels import LevelCounts, LevelKernels, level_counts, level_kernels
from blocks.layers.act import Act
from blocks.layers.conv import pointwise, transposed_conv
from blocks.layers.conv_stack import ConvStep, conv_stack
from blocks.layers.dropout import DropoutRate
from blocks.layers.fue import FUE
from blocks.layers.norm import Norm
from blocks.layers.residual_unit import ResidualUnit, Shortcut
from blocks.layers.resize import resize

Up = Literal["transpose", "interpolate", "nearest"]
SkipBlock = Literal["residual", "none"]


class ConcatDecoderSpec(DecoderSpec):
    """Go up level by level: enlarge, concatenate the skip, refine.

    What refines is `num_units` residual units, or as many plain steps of convolution, norm and
    activation as `num_convs` says; enlarging convolutions have a bias with the latter, as in
    nnU-Net. `bias` and `dropout`, which drops whole channels behind each convolution, go with the
    latter as well. `kernel_size`, `num_units` and `num_convs` hold for all levels, or are lists
    with one entry per level, fine to coarse; a list of numbers is a kernel per axis. A skip's unit
    has its level's kernel, and the coarsest skip's that of the level above.
    `input_skip` adds a finest level, whose skip is the network's input and whose width is the
    first stage's. `skip_block: residual` puts a residual unit on every skip and one more before
    the head; under `input_skip` a skip's unit widens it to the next stage's width, as in UNETR.
    `shortcut: conv` gives the first unit of a level a 1x1 convolution with a bias as its shortcut,
    always, and all units, and what enlarges, biases, as in U-Mamba. `up: nearest` repeats
    positions.
    `bottleneck_width` is the width of the coarsest level; by default the last stage's, or twice
    that under `input_skip`. `fue` weighs every skip, the input included, by its certainty first.
    """

    kind: Literal["concat"] = "concat"
    input_skip: bool = False
    skip_block: SkipBlock = "residual"
    bottleneck_width: Width | None = None
    up: Up = "transpose"
    fue: bool = False
    num_convs: LevelCounts | None = None
    norm: Norm = "layer"
    act: Act = "leaky_relu"
    kernel_size: Annotated[LevelKernels, Added(3)] = 3
    bias: Annotated[bool, Added(True)] = True
    dropout: Annotated[DropoutRate, Added(0.0)] = 0.0
    num_units: Annotated[LevelCounts, Added(1)] = 1
    shortcut: Annotated[Shortcut, Added("norm")] = "norm"

    @property
    def takes_input(self) -> bool:
        return self.input_skip

    def check(self, skips: Skips, heads: Heads) -> None:
        """Refuse what `DecoderSpec.check` does, and a bottleneck width that nothing can make."""
        if self.bottleneck_width is not None and self.skip_block == "none":
            raise SpecError(
                "needs skip_block: residual, whose unit changes the width",
                field="decoder.bottleneck_width",
                suggestion="leave it out, or change the last stage's width",
            )
        super().check(skips, heads)

    def check_levels(self, skips: Skips) -> None:
        self.kernels(skips)
        self.counts(skips)
        if self.num_convs is not None:
            for field, given in (
                ("num_units", self.num_units != 1),
                ("shortcut", self.shortcut != "norm"),
            ):
                if given:
                    raise SpecError(
                        "goes with residual units, which num_convs takes the place of",
                        field=field,
                        suggestion="leave it out, or num_convs",
                    )
            return
        for field, other in (("bias", not self.bias), ("dropout", self.dropout > 0)):
            if other:
                raise SpecError(
                    "goes with num_convs, for residual units have neither bias nor dropout",
                    field=field,
                    suggestion="give num_convs, or leave it out",
                )

    def kernels(self, skips: Skips) -> tuple[Grid, ...]:
        """Return the kernel of every level, and of the coarsest skip."""
        count, ndim = len(skips) - 1, skips[0].ndim
        found = level_kernels(self.kernel_size, count, ndim)
        return (*found, found[-1]) if found else level_kernels(self.kernel_size, 1, ndim)

    def counts(self, skips: Skips) -> tuple[int, ...]:
        """Return the number of units, or of plain steps, of every level."""
        field = "num_units" if self.num_convs is None else "num_convs"
        return level_counts(getattr(self, field), len(skips) - 1, field=field)

    def levels(self, skips: Skips) -> tuple[StageShape, ...]:
        """Return the skips' shapes behind their units, which decoded features have as well."""
        widths = [skip.channels for skip in skips]
        if self.skip_block == "none":
            return skips
        if self.input_skip:
            widths = [*widths[1:], 2 * widths[-1]]
        if self.bottleneck_width is not None:
            widths[-1] = self.bottleneck_width
        return tuple(StageShape(w, skip.grid) for w, skip in zip(widths, skips, strict=True))

    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        levels = self.levels(skips)
        if self.input_skip and self.skip_block == "none":
            return (StageShape(skips[1].channels, skips[0].grid), *levels[1:-1])
        return levels[:-1] or levels

    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        normed = self.levels(skips) if self.skip_block == "residual" else skips[:-1]
        return [("norm", self.norm, at) for at in normed]

    def num_steps(self, skips: Skips) -> int:
        return sum(self.counts(skips))

    def largest_inside(self, skips: Skips) -> int:
        levels, kernels = self.levels(skips), self.kernels(skips)
        decoded = self.feature_shapes(skips) if len(levels) > 1 else ()
        features = (*decoded, levels[-1])
        found = [shape.elements for shape in (*levels, *features)]
        if self.skip_block == "residual":
            for skip, level, kernel in zip(skips, levels, kernels, strict=True):
                widest = max(skip.channels, level.channels)
                found.append(level.channels * widest * math.prod(kernel))
        for (fine, coarse), level, kernel in zip(pairwise(features), levels, kernels, strict=False):
            joined = fine.channels + level.channels
            step = math.prod(f // c for f, c in zip(fine.grid, coarse.grid, strict=True))
            found += [
                joined * fine.positions,
                joined * fine.channels * math.prod(kernel),
                fine.channels * coarse.channels * step,
            ]
        return max(found)

    def build(self, skips: Skips, heads: Heads) -> "ConcatDecoder":
        return ConcatDecoder(skips, spec=self, heads=heads)


class ConcatDecoder(Decoder):
    """Concatenate each skip to the enlarged features from below.

    Between levels of equal grids, a 1x1 convolution takes the place of the enlargement.

    Source: UNETR, arXiv 2103.10504, section 3.1; SegMamba, arXiv 2401.13560, section 2.1;
    github.com/ge-xing/SegMamba@cff3597, model_segmamba/segmamba.py. With `num_convs`: nnU-Net,
    github.com/MIC-DKFZ/dynamic-network-architectures 0.4.4, building_blocks/unet_decoder.py.
    """

    def __init__(self, skips: Skips, *, spec: ConcatDecoderSpec, heads: Heads) -> None:
        levels, features = spec.levels(skips), spec.feature_shapes(skips)
        kernels, plain = spec.kernels(skips), spec.num_convs is not None
        biased = spec.bias if plain else spec.shortcut == "conv"
        super().__init__(features, spec=spec, heads=heads)
        self.takes_input = spec.takes_input
        self.fue = FUE() if spec.fue else nn.Identity()
        residual = spec.skip_block == "residual"
        self.skip_blocks = nn.ModuleList(
            _unit(skip.channels, level, kernel_size=kernel_size, spec=spec)
            if residual
            else nn.Identity()
            for skip, level, kernel_size in zip(skips, levels, kernels, strict=True)
        )
        decoded = features if len(levels) > 1 else ()
        self.ups = nn.ModuleList(
            _Up(coarse, fine, kind=spec.up, bias=biased)
            for fine, coarse in pairwise((*decoded, levels[-1]))
        )
        self.blocks = nn.ModuleList(
            _refine(
                at.channels + level.channels, at, kernel_size=kernel_size, count=count, spec=spec
            )
            for at, level, kernel_size, count in zip(
                decoded, levels, kernels, spec.counts(skips), strict=False
            )
        )
        self.last = (
            _unit(features[0].channels, features[0], kernel_size=kernels[0], spec=spec)
            if residual
            else nn.Identity()
        )

    def features(self, skips: list[Tensor]) -> list[Tensor]:
        weighed = [
            block(self.fue(skip)) for block, skip in zip(self.skip_blocks, skips, strict=True)
        ]
        x, found = weighed.pop(), []
        for level in reversed(range(len(self.blocks))):
            skip = weighed[level]
            up = self.ups[level](x, tuple(skip.shape[2:]))
            x = self.blocks[level](torch.cat([up, skip], dim=1))
            found.append(x)
        found = found[::-1] or [x]
        return [self.last(found[0]), *found[1:]]


def _unit(
    in_channels: int,
    at: StageShape,
    *,
    kernel_size: Grid,
    spec: ConcatDecoderSpec,
    shortcut: Shortcut = "norm",
) -> ResidualUnit:
    return ResidualUnit(
        in_channels,
        at,
        kernel_size=kernel_size,
        norm=spec.norm,
        act=spec.act,
        bias=spec.shortcut == "conv",
        shortcut=shortcut,
    )


def _refine(
    in_channels: int,
    at: StageShape,
    *,
    kernel_size: Grid,
    count: int,
    spec: ConcatDecoderSpec,
) -> nn.Module:
    """Return what refines a level: so many residual units or plain steps."""
    if spec.num_convs is None:
        first = _unit(in_channels, at, kernel_size=kernel_size, spec=spec, shortcut=spec.shortcut)
        more = [
            _unit(at.channels, at, kernel_size=kernel_size, spec=spec) for _ in range(count - 1)
        ]
        return nn.Sequential(first, *more) if more else first
    step = ConvStep(
        kernel_size=kernel_size,
        bias=spec.bias,
        dropout=spec.dropout,
        norm=spec.norm,
        act=spec.act,
    )
    return conv_stack(in_channels, at, num_convs=count, step=step)


class _Up(nn.Module):
    """Bring features to the channels and the grid of the next finer level."""

    def __init__(self, coarse: StageShape, fine: StageShape, *, kind: Up, bias: bool) -> None:
        super().__init__()
        stride = tuple(f // c for f, c in zip(fine.grid, coarse.grid, strict=True))
        if kind == "transpose" and any(step > 1 for step in stride):
            self.conv = transposed_conv(coarse.channels, fine.channels, stride=stride, bias=bias)
        else:
            self.conv = pointwise(coarse.channels, fine.channels, coarse.ndim, bias=bias)
        self.nearest = kind == "nearest"

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        if self.nearest:
            return F.interpolate(self.conv(x), size=grid)
        return resize(self.conv(x), grid)
