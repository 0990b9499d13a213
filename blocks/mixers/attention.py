"""Multi-head self-attention over the grid, with keys and values on a reduced grid if asked."""

import math
from collections.abc import Callable
from math import prod
from typing import Annotated, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import (
    Added,
    AxesOrAuto,
    Count,
    Grid,
    LayerSpec,
    Positive,
    SpecError,
    StageShape,
    Width,
    per_axis,
)
from blocks.layers.conv import patch_conv
from blocks.layers.rope import THETA

Scale = Literal["head_dim", "num_heads"]
Rope = Literal["none", "axial"]

_MOST = 4
"""The largest reduction that `auto` takes: SegFormer3D's, at its finest grid."""


class AttentionMixerSpec(LayerSpec):
    """Mix all positions by attention.

    `reduction` r makes keys and values from a convolution with kernel = stride = r and a layer
    norm, so that cost falls by r per axis, by which the grid must divide. `auto` is, axis by axis,
    the largest r up to 4 by which it does so at the patch size, padded where strides ask for it:
    `auto` itself asks for no padding. `reduce_above` makes it 1 on grids of up to that many
    positions. The plan puts the number in its place, and a network keeps it at every input size.

    Scores are divided by the root of what `scale` names; `num_heads` is what SegFormer3D's first
    release did. `rope: axial` rotates queries and keys by their positions, reduced keys by those of
    their patches' centres: of each head the largest part that divides by two per axis. `theta`,
    which goes with it, is the base of its frequencies, the slowest of which turns by about
    1 / theta per position.
    """

    kind: Literal["attention"] = "attention"
    num_heads: Width = 1
    reduction: AxesOrAuto = 1
    qkv_bias: bool = True
    scale: Scale = "head_dim"
    rope: Rope = "none"
    reduce_above: Annotated[Count | None, Added(None)] = None
    theta: Annotated[Positive, Added(THETA)] = THETA

    def divisor(self, ndim: int) -> Grid:
        """Return the reduction per axis; `auto` asks for nothing."""
        if self.reduction == "auto":
            return (1,) * ndim
        return per_axis(self.reduction, ndim, where="reduction")

    def settled(self, at: StageShape, largest: Callable[[int], Grid]) -> Self:
        if self.reduction != "auto":
            return self
        few = self.reduce_above is not None and prod(at.grid) <= self.reduce_above
        found = (1,) * at.ndim if few else largest(_MOST)
        reduction = found[0] if len(set(found)) == 1 else found
        return self.model_copy(update={"reduction": reduction, "reduce_above": None})

    def check(self, at: StageShape) -> None:
        if self.reduce_above is not None:  # what was auto has none any more
            raise SpecError(
                f"goes with reduction: auto, not {self.reduction}",
                field="reduce_above",
                suggestion="leave it out",
            )
        if self.rope == "none" and self.theta != THETA:
            raise SpecError(
                "goes with rope: axial, not none", field="theta", suggestion="leave it out"
            )
        least = 1 if self.rope == "none" else 2 * at.ndim
        if at.channels % self.num_heads:
            raise SpecError(
                f"{self.num_heads} must divide the width {at.channels}",
                field="num_heads",
                suggestion=self._what_fits(at, least),
            )
        head_dim = at.channels // self.num_heads
        if head_dim < least:
            raise SpecError(
                f"'axial' on {at.ndim} axes needs head dims of at least {least}, but "
                f"{at.channels} / {self.num_heads} heads = {head_dim}",
                field="rope",
                suggestion=f"{self._what_fits(at, least)}, or rope: none",
            )

    def _what_fits(self, at: StageShape, least: int) -> str:
        """Return the nearest heads for the width, and the nearest widths for the heads.

        `least` is the smallest head.
        """
        most = at.channels // least
        heads = [n for n in range(1, most + 1) if at.channels % n == 0]
        below = [n for n in heads if n < self.num_heads][-1:]
        near = below + [n for n in heads if n > self.num_heads][:1]
        size = at.channels / self.num_heads
        sizes = {max(math.floor(size), least), max(math.ceil(size), least)}
        widths = sorted(self.num_heads * one for one in sizes)
        found = {"num_heads": near, "width": widths}
        return "nearest: " + ", or ".join(
            f"{field} {' or '.join(map(str, values))}" for field, values in found.items() if values
        )

    def largest(self, at: StageShape) -> int:
        reduction = prod(self.divisor(at.ndim))
        keys_and_values = 2 * at.elements // reduction
        return max(at.channels**2 * max(2, reduction), at.elements, keys_and_values)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return Attention(
            at,
            num_heads=self.num_heads,
            reduction=self.divisor(at.ndim),
            qkv_bias=self.qkv_bias,
            scale=self.scale,
            theta=self.theta if self.rope == "axial" else None,
        )


class Attention(nn.Module):
    """Softmax attention of every position over the (reduced) grid; tokens in row-major order.

    Source: SegFormer, arXiv 2105.15203, section 3.1 (sequence reduction); in 3-D SegFormer3D,
    arXiv 2404.10156; github.com/OSUPCVLab/SegFormer3D@9d2fa50, architectures/segformer3d.py.
    Deviation: any grid works, not only cubes.

    `theta` is the base of rotary positions, None for none.
    """

    def __init__(
        self,
        at: StageShape,
        *,
        num_heads: int,
        reduction: Grid,
        qkv_bias: bool,
        scale: Scale,
        theta: float | None,
    ) -> None:
        super().__init__()
        channels = at.channels
        self.num_heads = num_heads
        self.factor = (channels // num_heads if scale == "head_dim" else num_heads) ** -0.5
        self.query = nn.Linear(channels, channels, bias=qkv_bias)
        self.key_value = nn.Linear(channels, 2 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.reduce: nn.Module | None = None
        if prod(reduction) > 1:
            self.reduce = patch_conv(channels, channels, stride=reduction)
            self.reduce_norm = nn.LayerNorm(channels)
        self.step = reduction if self.reduce is not None else None
        self.rope: nn.Module | None = None
        if theta is not None:
            from blocks.layers.axial_rope import AxialRope  # timm: seconds to import

            self.rope = AxialRope(channels // num_heads, ndim=at.ndim, theta=theta)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        source = tokens
        if self.reduce is not None:
            source = self.reduce_norm(self.reduce(x).flatten(2).mT)
        q = self._heads(self.query(tokens))
        k, v = (self._heads(part) for part in self.key_value(source).chunk(2, dim=-1))
        if self.rope is not None:
            grid, step = tuple(x.shape[2:]), self.step
            coarse = (
                grid if step is None else tuple(n // s for n, s in zip(grid, step, strict=True))
            )
            q, k = self.rope(q, grid), self.rope(k, coarse, step)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.factor)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out.mT.reshape(x.shape)

    def _heads(self, tokens: Tensor) -> Tensor:
        """Return (B, L, C) as (B, heads, L, head_dim)."""
        return tokens.reshape(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)
