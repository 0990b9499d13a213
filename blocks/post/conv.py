"""One convolution behind the blocks of a stage."""

import math
from typing import Literal

from torch import nn

from blocks.base import Axes, LayerSpec, StageShape
from blocks.layers.conv import conv, odd_kernel


class ConvPostSpec(LayerSpec):
    """End the stage with a dense convolution, without norm or activation."""

    kind: Literal["conv"] = "conv"
    kernel_size: Axes = 3

    def check(self, at: StageShape) -> None:
        odd_kernel(self.kernel_size, at.ndim)

    def largest(self, at: StageShape) -> int:
        return at.channels**2 * math.prod(odd_kernel(self.kernel_size, at.ndim))

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape.

        Source: github.com/badhandas/SegResMamba@7142651, model/segresmamba.py, `stages`.
        """
        return conv(at.channels, at.channels, kernel_size=odd_kernel(self.kernel_size, at.ndim))
