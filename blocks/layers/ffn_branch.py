"""An FFN behind blocks that have no branch of their own for it."""

from torch import Tensor, nn

from blocks.base import StageShape
from blocks.layers.norm import build_norm


class FFNBranch(nn.Module):
    """Compute x + ffn(norm(x)): (B, C, *grid) -> same shape."""

    def __init__(self, at: StageShape, *, ffn: nn.Module, norm: str) -> None:
        super().__init__()
        self.norm = build_norm(norm, at)
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.ffn(self.norm(x))
        return out


def with_ffn(block: nn.Module, at: StageShape, *, ffn: nn.Module | None, norm: str) -> nn.Module:
    """Return the block, followed by the FFN where there is one."""
    return block if ffn is None else nn.Sequential(block, FFNBranch(at, ffn=ffn, norm=norm))
