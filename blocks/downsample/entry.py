"""What the plan asks of whatever takes features to a stage's grid and width."""

from abc import ABC, abstractmethod

from torch import nn

from blocks.base import ComponentSpec, Grid, StageShape


class EntrySpec(ComponentSpec, ABC):
    """Declare how a stage is entered; subclasses say by which strides, and build it."""

    @abstractmethod
    def strides(self, ndim: int) -> Grid:
        """Return the stride per axis: the stage's grid is that of its input divided by it."""

    @abstractmethod
    def build(self, inp: StageShape, out: StageShape) -> nn.Module:
        """Return a module (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid)."""

    @property
    def is_in_block(self) -> bool:
        """Say whether the stage's first block holds it, as the convolution it starts with."""
        return False

    def check(self, inp: StageShape, out: StageShape) -> None:
        """Refuse what cannot work between these shapes.

        Raises:
            SpecError: `field` is the field's name; the plan puts the path before it.
        """

    def largest(self, inp: StageShape, out: StageShape) -> int:
        """Return the elements of its largest tensor, see `LayerSpec.largest`."""
        return inp.channels * out.channels
