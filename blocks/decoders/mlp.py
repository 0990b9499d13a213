"""The all-MLP decoder: every skip is projected, interpolated to the finest grid and fused."""

from typing import Literal

import torch
from torch import Tensor, nn

from blocks.base import StageShape, Width
from blocks.decoders.decoder import Decoder, DecoderSpec, Heads, Skips
from blocks.layers.act import Act, build_act
from blocks.layers.conv import pointwise
from blocks.layers.linear import ChannelLinear
from blocks.layers.norm import Norm, build_norm
from blocks.layers.resize import resize

Order = Literal["fine_first", "coarse_first"]


class MLPDecoderSpec(DecoderSpec):
    """Project all skips to `width`, bring them to the finest skip's grid, concatenate, fuse.

    `order` is the order of concatenation; it matters to published weights only.
    """

    kind: Literal["mlp"] = "mlp"
    width: Width = 64
    proj_norm: Norm = "none"
    fuse_norm: Norm = "layer"
    act: Act = "relu"
    order: Order = "fine_first"

    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        return tuple(StageShape(self.width, skip.grid) for skip in skips)

    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        features = self.feature_shapes(skips)
        return [
            ("fuse_norm", self.fuse_norm, features[0]),
            *(("proj_norm", self.proj_norm, at) for at in features),
        ]

    def largest_inside(self, skips: Skips) -> int:
        joined = len(skips) * self.width
        widest = max(joined, *(skip.channels for skip in skips))
        return max(self.width * widest, joined * skips[0].positions)

    def build(self, skips: Skips, heads: Heads) -> "MLPDecoder":
        return MLPDecoder(skips, spec=self, heads=heads)


class MLPDecoder(Decoder):
    """Fuse all scales position by position; auxiliary heads sit on the projected skips.

    Source: SegFormer, arXiv 2105.15203, section 3.2; in 3-D SegFormer3D, arXiv 2404.10156,
    github.com/OSUPCVLab/SegFormer3D@9d2fa50, architectures/segformer3d.py.
    """

    def __init__(self, skips: Skips, *, spec: MLPDecoderSpec, heads: Heads) -> None:
        features = spec.feature_shapes(skips)
        super().__init__(features, spec=spec, heads=heads)
        self.order = spec.order
        fused = features[0]
        self.projections = nn.ModuleList(
            nn.Sequential(
                ChannelLinear(skip.channels, fused.channels),
                build_norm(spec.proj_norm, feature),
            )
            for skip, feature in zip(skips, features, strict=True)
        )
        self.fuse = nn.Sequential(
            pointwise(len(skips) * fused.channels, fused.channels, fused.ndim, bias=False),
            build_norm(spec.fuse_norm, fused),
            build_act(spec.act),
        )

    def features(self, skips: list[Tensor]) -> list[Tensor]:
        projected = [layer(x) for layer, x in zip(self.projections, skips, strict=True)]
        grid = tuple(skips[0].shape[2:])
        scales = [resize(x, grid) for x in projected]
        if self.order == "coarse_first":
            scales.reverse()
        fused = self.fuse(torch.cat(scales, dim=1))
        return [fused, *projected[1:]]
