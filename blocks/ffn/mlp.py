"""The two-layer perceptron on each position."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from blocks.base import Added, LayerSpec, StageShape
from blocks.layers.perceptron import perceptron


class MLPSpec(LayerSpec):
    """Widen by `ratio`, GELU, and back. `grn` is global response normalisation behind the GELU."""

    kind: Literal["mlp"] = "mlp"
    ratio: Annotated[float, Field(gt=0, le=16)] = 4.0
    grn: Annotated[bool, Added(False)] = False

    def largest(self, at: StageShape) -> int:
        return self._hidden(at) * max(at.channels, at.positions)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape.

        Source: transformer feed-forward, arXiv 1706.03762, section 3.3, with GELU; `grn` as in
        ConvNeXt V2, arXiv 2301.00808, figure 3.
        """
        hidden = StageShape(self._hidden(at), at.grid)
        return perceptron(at.channels, hidden, at.channels, grn=self.grn)

    def _hidden(self, at: StageShape) -> int:
        return max(1, round(at.channels * self.ratio))
