"""The FFN with a depthwise convolution, which also tells positions apart."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from blocks.base import LayerSpec, StageShape
from blocks.layers.conv import conv
from blocks.layers.linear import ChannelLinear
from blocks.layers.norm import Norm, build_norm, check_norm


class MixFFNSpec(LayerSpec):
    """Widen by `ratio`, depthwise convolution 3, norm, GELU, and back."""

    kind: Literal["mix"] = "mix"
    ratio: Annotated[float, Field(gt=0, le=16)] = 4.0
    norm: Norm = "none"

    def check(self, at: StageShape) -> None:
        check_norm(self.norm, self._hidden(at), field="norm")

    def largest(self, at: StageShape) -> int:
        hidden = self._hidden(at)
        return max(hidden.channels * at.channels, hidden.elements)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape.

        Source: SegFormer, arXiv 2105.15203, equation 3, which has no norm; SegFormer3D puts a
        batch norm after the convolution (OSUPCVLab/SegFormer3D@9d2fa50).
        """
        hidden = self._hidden(at)
        width = hidden.channels
        return nn.Sequential(
            ChannelLinear(at.channels, width),
            conv(width, width, kernel_size=(3,) * at.ndim, groups=width),
            build_norm(self.norm, hidden),
            nn.GELU(),
            ChannelLinear(width, at.channels),
        )

    def _hidden(self, at: StageShape) -> StageShape:
        return StageShape(max(1, round(at.channels * self.ratio)), at.grid)
