"""What all decoders share: heads, deep supervision, and the grids of their outputs."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from blocks.base import ComponentSpec, Grid, SpecError, StageShape
from blocks.layers.conv import pointwise
from blocks.layers.head import HeadKind, build_head
from blocks.layers.norm import check_norm

Skips = tuple[StageShape, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What a decoder is asked for: `count` outputs of `num_classes`, the finest at `patch_size`."""

    count: int
    num_classes: int
    patch_size: Grid


class DecoderSpec(ComponentSpec, ABC):
    """Declare a decoder; subclasses say which features it has and build it."""

    head: HeadKind = "interpolate"

    @property
    def takes_input(self) -> bool:
        """Say whether the network's input comes first among the skips."""
        return False

    def inputs(self, inp: StageShape, skips: Skips) -> Skips:
        """Return what it gets: the skips, behind the network's input if it asks for it."""
        return (inp, *skips) if self.takes_input else skips

    def divisor(self, ndim: int) -> Grid:
        """Return by what each axis of the network's input must divide for the decoder's sake."""
        return (1,) * ndim

    @abstractmethod
    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        """Return the features that heads may sit on, fine to coarse."""

    @abstractmethod
    def build(self, skips: Skips, heads: Heads) -> "Decoder":
        """Return the decoder for skips given fine to coarse."""

    @abstractmethod
    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        """Return (field, norm, shape) of every norm, for the plan to check."""

    def check_levels(self, skips: Skips) -> None:
        """Refuse lists with another number of entries than levels, and what cannot stand in them.

        Raises:
            SpecError: `field` is the field's name.
        """

    def num_steps(self, skips: Skips) -> int:
        """Return how many blocks its levels have in all."""
        return 0

    def largest_inside(self, skips: Skips) -> int:
        """Return the elements of its largest tensor at batch 1, heads left out."""
        return max(shape.elements for shape in self.feature_shapes(skips))

    def largest(self, skips: Skips, heads: Heads) -> int:
        """Return the elements of its largest tensor at batch 1, see `LayerSpec.largest`."""
        finest = self.feature_shapes(skips)[0]
        gap = math.prod(_gap(heads.patch_size, finest.grid)) if self.head == "transpose" else 1
        logits = heads.num_classes * math.prod(heads.patch_size)
        return max(self.largest_inside(skips), logits, finest.channels * heads.num_classes * gap)

    def check(self, skips: Skips, heads: Heads) -> None:
        """Refuse what cannot work: a head short of the patch grid, too many heads, a norm.

        Raises:
            SpecError: see above; the message starts with the field.
        """
        try:
            self.check_levels(skips)
        except SpecError as error:
            raise error.below("decoder") from None
        features = self.feature_shapes(skips)
        gap = _gap(heads.patch_size, features[0].grid)
        if self.head == "conv" and any(step != 1 for step in gap):
            raise SpecError(
                f"'conv' needs decoder features at patch size, but they are {list(gap)} times "
                "coarser",
                field="decoder.head",
                suggestion="use head: transpose or interpolate",
            )
        for field, norm, at in self.norms(skips):
            check_norm(norm, at, field=f"decoder.{field}")
        possible = len(head_levels(features))
        if heads.count > possible:
            raise SpecError(
                f"{heads.count} heads, but the decoder has features at {possible} different grids",
                field="deep_supervision.heads",
                suggestion=f"use at most {possible}",
            )

    def output_grids(self, skips: Skips, heads: Heads) -> tuple[Grid, ...]:
        """Return the grid of every head's logits, fine to coarse; the first is the patch."""
        features = self.feature_shapes(skips)
        levels = head_levels(features)[1 : heads.count]
        return (heads.patch_size, *(features[level].grid for level in levels))


class Decoder(nn.Module, ABC):
    """Map skips (fine to coarse) to logits.

    All heads are always built, as `seg_layers`, so the state dict never depends on
    `deep_supervision`. While that flag is set, forward returns a list, fine to coarse.
    """

    def __init__(
        self, features: tuple[StageShape, ...], *, spec: DecoderSpec, heads: Heads
    ) -> None:
        super().__init__()
        self.deep_supervision = False
        self.takes_input = False
        self.head_levels = head_levels(features)[: heads.count]
        self.seg_layers = nn.ModuleList(self.make_heads(features, spec=spec, heads=heads))

    def make_heads(self, features: Skips, *, spec: DecoderSpec, heads: Heads) -> list[nn.Module]:
        """Return a module (features, grid of the patch) -> logits for every output."""
        num_classes, ndim = heads.num_classes, len(heads.patch_size)
        gap = _gap(heads.patch_size, features[0].grid)
        return [
            build_head(spec.head, features[0].channels, num_classes, gap=gap),
            *(
                pointwise(features[level].channels, num_classes, ndim)
                for level in self.head_levels[1:]
            ),
        ]

    @abstractmethod
    def features(self, skips: list[Tensor]) -> list[Tensor]:
        """Return the decoder's features, fine to coarse."""

    def forward(
        self, skips: list[Tensor], grid: Grid, size: Grid | None = None
    ) -> Tensor | list[Tensor]:
        """Return logits at `grid`, or the list of all outputs under deep supervision.

        They are cropped to the part of it that the input of this `size`, if another, had before it
        was padded.
        """
        size = grid if size is None else size
        features = self.features(skips)
        logits: Tensor = _cropped(self.seg_layers[0](features[0], grid), grid, size)
        if not self.deep_supervision:
            return logits
        if len(self.seg_layers) == 1:
            return [logits, logits[..., :: _second_step(size)]]
        coarse = zip(list(self.seg_layers)[1:], self.head_levels[1:], strict=True)
        return [logits, *(_cropped(layer(features[level]), grid, size) for layer, level in coarse)]


def plans_strides(output_grids: tuple[Grid, ...]) -> list[list[int]]:
    """Return the rows that nnU-Net reads as `strides` of plans: one per output, and one more.

    nnU-Net derives the targets' sizes from all rows but the last, and gives the last output no
    weight. With one head the network returns its logits twice (the second time thinned along the
    last axis), because with two rows nnU-Net's weights would be 0 / 0.

    Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py (2.8.1),
    `_get_deep_supervision_scales` and `_build_loss`.
    """
    patch = output_grids[0]
    rows = [[1] * len(patch)]
    if len(output_grids) == 1:
        rows.append([1] * (len(patch) - 1) + [_second_step(patch)])
    for finer, coarser in pairwise(output_grids):
        rows.append(list(_gap(finer, coarser)))
    return [*rows, rows[-1]]


def divides(patch: Grid, padded: Grid, grid: Grid) -> bool:
    """Say whether an output at this grid of the padded patch has whole positions of the patch."""
    return all(n * g % p == 0 for n, p, g in zip(patch, padded, grid, strict=True))


def _cropped(out: Tensor, grid: Grid, size: Grid) -> Tensor:
    """Return the near end of an output: as much of it as `size` is of `grid`, rounded up."""
    if grid == size:
        return out
    for axis, (whole, part) in enumerate(zip(grid, size, strict=True), start=2):
        out = out.narrow(axis, 0, -(-out.shape[axis] * part // whole))
    return out


def _second_step(grid: Grid) -> int:
    """Return how the second copy of a single output is thinned; an odd axis cannot be."""
    return 2 if grid[-1] % 2 == 0 else 1


def _gap(fine: Grid, coarse: Grid) -> Grid:
    return tuple(f // c for f, c in zip(fine, coarse, strict=True))


def head_levels(features: tuple[StageShape, ...]) -> list[int]:
    """Return the levels whose grid is strictly coarser than the head before."""
    levels = [0]
    for level, shape in enumerate(features):
        if shape.grid != features[levels[-1]].grid:
            levels.append(level)
    return levels
