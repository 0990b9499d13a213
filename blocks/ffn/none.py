"""No feed-forward network."""

from typing import Literal

from blocks.base import LayerSpec, StageShape


class NoFFNSpec(LayerSpec):
    """Leave the FFN out of the block."""

    kind: Literal["none"] = "none"

    def build(self, at: StageShape) -> None:
        """Return None: the block has no FFN, nor a norm for it."""
        return
