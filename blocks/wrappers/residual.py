"""The pre-norm residual block."""

from typing import Literal

from torch import Tensor, nn

from blocks.base import LayerSpec, StageShape
from blocks.layers.norm import Norm, build_norm, check_norm


class ResidualBlockSpec(LayerSpec):
    """Add mixer and FFN, each behind a norm, to the features."""

    kind: Literal["residual"] = "residual"
    norm: Norm = "layer"

    def check(self, at: StageShape) -> None:
        check_norm(self.norm, at, field="norm")

    def build(self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return ResidualBlock(at, mixer=mixer, ffn=ffn, norm=self.norm)


class ResidualBlock(nn.Module):
    """Compute x + mixer(norm(x)), then x + ffn(norm(x)) where there is an FFN.

    Source: pre-norm residual order, arXiv 2002.04745, figure 1b.
    """

    def __init__(
        self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None, norm: str
    ) -> None:
        super().__init__()
        self.norm = build_norm(norm, at)
        self.mixer = mixer
        self.ffn_norm = None if ffn is None else build_norm(norm, at)
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm(x))
        if self.ffn is not None and self.ffn_norm is not None:
            x = x + self.ffn(self.ffn_norm(x))
        return x
