"""Stochastic depth: training drops a residual branch of a sample at random."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Set whole samples of (B, ...) to zero at `rate` in training; the others grow to match.

    timm's DropPath, restated because importing timm takes seconds; tests compare the two.

    Source: arXiv 1603.09382, section 3.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        kept = x.new_empty(len(x), *(1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


def spread_drop_path(blocks: list[nn.Module]) -> None:
    """Scale the rates linearly over depth: nothing in the first block, all of it in the last."""
    for index, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(module, DropPath):
                module.rate *= index / max(len(blocks) - 1, 1)
