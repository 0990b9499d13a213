"""The two-layer perceptron on each position."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from blocks.base import LayerSpec, StageShape
from blocks.layers.conv import pointwise


class MLPSpec(LayerSpec):
    """Widen by `ratio`, GELU, and back."""

    kind: Literal["mlp"] = "mlp"
    ratio: Annotated[float, Field(gt=0, le=16)] = 4.0

    def largest(self, at: StageShape) -> int:
        return self._hidden(at) * max(at.channels, at.positions)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape.

        Source: transformer feed-forward, arXiv 1706.03762, section 3.3, with GELU.
        """
        hidden = self._hidden(at)
        return nn.Sequential(
            pointwise(at.channels, hidden, at.ndim),
            nn.GELU(),
            pointwise(hidden, at.channels, at.ndim),
        )

    def _hidden(self, at: StageShape) -> int:
        return max(1, round(at.channels * self.ratio))
