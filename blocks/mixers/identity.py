"""The mixer that mixes nothing: the control that shows what the others add."""

from typing import Literal

from torch import nn

from blocks.base import LayerSpec, StageShape


class IdentityMixerSpec(LayerSpec):
    """Leave features unchanged."""

    kind: Literal["identity"] = "identity"

    def build(self, at: StageShape) -> nn.Module:
        """Return a module that maps (B, C, *grid) to itself."""
        return nn.Identity()
