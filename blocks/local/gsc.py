"""GSC: the gated spatial convolution."""

import math
from typing import Literal

from torch import Tensor, nn

from blocks.base import LayerSpec, StageShape
from blocks.layers.act import build_act
from blocks.layers.conv import conv
from blocks.layers.norm import build_norm, check_norm

NORM = "instance"


class GSCSpec(LayerSpec):
    """Refine features by 3x3x3 and 1x1x1 convolutions side by side, behind a residual.

    `combine` is how the two meet: added, as in SegMamba's released code, or multiplied, as in the
    paper. `repeat` puts one before all blocks of the stage, or one before every block.
    """

    kind: Literal["gsc"] = "gsc"
    combine: Literal["sum", "product"] = "sum"
    repeat: Literal["stage", "block"] = "stage"

    def check(self, at: StageShape) -> None:
        check_norm(NORM, at, field="kind: gsc", instead="kind: none, ")

    def largest(self, at: StageShape) -> int:
        return at.channels**2 * math.prod((3,) * at.ndim)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return GSCSum(at) if self.combine == "sum" else GSCProduct(at)


class GSCSum(nn.Module):
    """Compute x + last(second(first(x)) + side(x)); every part is conv - instance norm - ReLU.

    `first` and `second` have 3x3x3 kernels, `side` and `last` 1x1x1.

    Source: github.com/ge-xing/SegMamba@cff3597, model_segmamba/segmamba.py, `GSC`.
    """

    def __init__(self, at: StageShape) -> None:
        super().__init__()
        self.first = _conv_norm_act(at, kernel=3)
        self.second = _conv_norm_act(at, kernel=3)
        self.side = _conv_norm_act(at, kernel=1)
        self.last = _conv_norm_act(at, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.second(self.first(x)) + self.side(x))
        return x + out


class GSCProduct(nn.Module):
    """Compute x + last(first(x) * side(x)); every part is instance norm - conv - ReLU.

    `first` and `last` have 3x3x3 kernels, `side` 1x1x1: one 1x1x1 convolution fewer than the sum.
    The figure says only "Nonlinear"; it is ReLU here, as in the released code.

    Source: SegMamba, arXiv 2401.13560, section 2.2 and figure 3.
    """

    def __init__(self, at: StageShape) -> None:
        super().__init__()
        self.first = _norm_conv_act(at, kernel=3)
        self.side = _norm_conv_act(at, kernel=1)
        self.last = _norm_conv_act(at, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x) * self.side(x))
        return x + out


def _conv_norm_act(at: StageShape, *, kernel: int) -> nn.Module:
    return nn.Sequential(_conv(at, kernel=kernel), build_norm(NORM, at), build_act("relu"))


def _norm_conv_act(at: StageShape, *, kernel: int) -> nn.Module:
    return nn.Sequential(build_norm(NORM, at), _conv(at, kernel=kernel), build_act("relu"))


def _conv(at: StageShape, *, kernel: int) -> nn.Module:
    return conv(at.channels, at.channels, kernel_size=(kernel,) * at.ndim)
