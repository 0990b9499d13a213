"""Stochastic depth: training drops a residual branch of a sample at random."""

from torch import nn


def build_drop_path(rate: float) -> nn.Module:
    """Return timm's DropPath, or nothing to do at rate 0.

    Source: arXiv 1603.09382, section 3.
    """
    if rate == 0:
        return nn.Identity()
    from timm.layers import DropPath  # here, because importing timm takes seconds

    path: nn.Module = DropPath(rate)
    return path
