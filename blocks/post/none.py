"""Nothing behind the blocks."""

from typing import Literal

from torch import nn

from blocks.base import LayerSpec, StageShape


class NoPostSpec(LayerSpec):
    """Let the stage end with its blocks."""

    kind: Literal["none"] = "none"

    def build(self, at: StageShape) -> nn.Module:
        """Return a module that maps (B, C, *grid) to itself."""
        return nn.Identity()
