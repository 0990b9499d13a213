"""The pre-norm residual block."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blocks.base import Positive, StageShape
from blocks.layers.conv_gate import ConvGate, check_conv_gate
from blocks.layers.drop_path import build_drop_path
from blocks.layers.layer_scale import ChannelLayerScale
from blocks.layers.linear import ChannelLinear
from blocks.layers.norm import Norm, build_norm, check_norm
from blocks.wrappers.block import BlockSpec

Gate = Literal["none", "conv"]


class ResidualBlockSpec(BlockSpec):
    """Add mixer and FFN, each behind a norm, to the features.

    `gate: conv` blends the mixer with a convolution beside it, by a learned gate. `project` puts a
    linear layer after mixer and gate. `layer_scale` multiplies each branch by a learned factor per
    channel that starts there. `drop_path` is how often training drops a branch of a sample in the
    network's last block; the rate rises linearly from 0 in its first block.
    """

    kind: Literal["residual"] = "residual"
    norm: Norm = "layer"
    gate: Gate = "none"
    project: bool = False
    layer_scale: Positive | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def check(self, at: StageShape) -> None:
        check_norm(self.norm, at, field="norm")
        if self.gate == "conv":
            check_conv_gate(at, field="gate")

    def largest(self, at: StageShape) -> int:
        gated = 2 * max(at.channels**2, at.elements) if self.gate == "conv" else 0
        return max(at.channels**2 if self.project else 0, gated)

    def build(
        self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None, position: float = 0.0
    ) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape.

        `position` is where the block stands in the network: 0 is the first, 1 the last.
        """
        return ResidualBlock(
            at, spec=self, mixer=mixer, ffn=ffn, drop_path=self.drop_path * position
        )


class ResidualBlock(nn.Module):
    """Compute x + mixer(norm(x)), then x + ffn(norm(x)) where there is an FFN.

    `drop_path` is this block's own rate.

    Source: pre-norm residual order, arXiv 2002.04745, figure 1b. Gate and projection: SegMaFormer,
    arXiv 2603.22002, as in github.com/duydngn89/nnUNet-Custom@0292340, SegMaFormer.py (authorship
    unverified).
    """

    def __init__(
        self,
        at: StageShape,
        *,
        spec: ResidualBlockSpec,
        mixer: nn.Module,
        ffn: nn.Module | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm = build_norm(spec.norm, at)
        self.mixer = mixer
        self.gate = ConvGate(at) if spec.gate == "conv" else None
        self.project = ChannelLinear(at.channels, at.channels) if spec.project else nn.Identity()
        self.ffn_norm = None if ffn is None else build_norm(spec.norm, at)
        self.ffn = ffn
        self.mixer_scale = _scale(at, spec.layer_scale)
        self.ffn_scale = None if ffn is None else _scale(at, spec.layer_scale)
        self.drop = build_drop_path(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        mixed = self.mixer(normed)
        if self.gate is not None:
            mixed = self.gate(mixed, normed)
        x = x + self.drop(self.mixer_scale(self.project(mixed)))
        if self.ffn is not None and self.ffn_norm is not None and self.ffn_scale is not None:
            x = x + self.drop(self.ffn_scale(self.ffn(self.ffn_norm(x))))
        return x


def _scale(at: StageShape, init: float | None) -> nn.Module:
    return nn.Identity() if init is None else ChannelLayerScale(at.channels, init=init)
