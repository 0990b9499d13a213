"""What all wrappers share: what their mixer sees, and how a convolution enters the first block."""

import math
from abc import ABC, abstractmethod
from typing import Annotated

from torch import nn

from blocks.base import Added, Axes, Grid, LayerSpec, StageShape
from blocks.layers.act import Act
from blocks.layers.conv import conv, odd_kernel
from blocks.layers.dropout import DropoutRate
from blocks.layers.norm import Norm, check_norm


class BlockSpec(LayerSpec, ABC):
    """Declare a block; subclasses say how mixer and FFN sit in it."""

    def grid_divisor(self, needed: Grid) -> Grid:
        """Return by what the stage's grid must divide if the mixer's must divide by `needed`."""
        return needed

    def mixer_shape(self, at: StageShape) -> StageShape:
        """Return the features that the mixer sees in a block at `at`."""
        return at

    @abstractmethod
    def build(
        self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None, position: float = 0.0
    ) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape; the mixer was built at `mixer_shape`.

        `position` is where the block stands in the network: 0 is the first, 1 the last.
        """


class ConvBlockSpec(BlockSpec):
    """Declare a block that starts with a convolution, which may hold the stage's stride.

    `bias` is the convolution's; `dropout` is how often training drops a channel of a sample.
    """

    kernel_size: Axes = 3
    norm: Norm = "layer"
    act: Act = "leaky_relu"
    bias: Annotated[bool, Added(True)] = True
    dropout: Annotated[DropoutRate, Added(0.0)] = 0.0

    def check(self, at: StageShape) -> None:
        odd_kernel(self.kernel_size, at.ndim)
        check_norm(self.norm, at, field="norm")

    def largest(self, at: StageShape) -> int:
        return at.channels**2 * math.prod(odd_kernel(self.kernel_size, at.ndim))

    def build(
        self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None, position: float = 0.0
    ) -> nn.Module:
        kernel_size = odd_kernel(self.kernel_size, at.ndim)
        first = conv(at.channels, at.channels, kernel_size=kernel_size, bias=self.bias)
        return self.build_first(at, at, conv=first, mixer=mixer, ffn=ffn)

    @abstractmethod
    def build_first(
        self,
        inp: StageShape,
        at: StageShape,
        *,
        conv: nn.Module,
        mixer: nn.Module,
        ffn: nn.Module | None,
    ) -> nn.Module:
        """Return the block around a convolution from `inp` to `at`, for the mixer at `at`."""
