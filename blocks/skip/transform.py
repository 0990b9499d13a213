"""The transform between a stage and the decoder; the next stage never sees it."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from blocks.base import LayerSpec, SpecError, StageShape
from blocks.ffn.mlp import MLPSpec
from blocks.layers.norm import Norm, build_norm, check_norm

Tap = Literal["after", "before_blocks", "none"]


class SkipSpec(LayerSpec):
    """Give the decoder mlp(norm(x)), without a residual; by default x itself.

    `mlp_ratio` is the MLP's hidden width over the stage's, null for no MLP. `tap` takes x after
    the stage's blocks, or right after its down-sampling; with `none` the decoder gets nothing of
    the stage, which then may be part of a stem.
    """

    norm: Norm = "none"
    mlp_ratio: Annotated[float, Field(gt=0, le=16)] | None = None
    tap: Tap = "after"

    def check(self, at: StageShape) -> None:
        if self.tap == "none" and (self.norm != "none" or self.mlp_ratio is not None):
            raise SpecError(
                "'none' leaves norm and mlp_ratio without use",
                field="tap",
                suggestion="use after, or leave them out",
            )
        check_norm(self.norm, at, field="norm")

    def largest(self, at: StageShape) -> int:
        return 0 if self.mlp_ratio is None else MLPSpec(ratio=self.mlp_ratio).largest(at)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape.

        Source: github.com/ge-xing/SegMamba@cff3597, model_segmamba/segmamba.py, `MlpChannel`.
        """
        norm = build_norm(self.norm, at)
        if self.mlp_ratio is None:
            return norm
        return nn.Sequential(norm, MLPSpec(ratio=self.mlp_ratio).build(at))
