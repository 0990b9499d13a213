"""No local module."""

from typing import Literal

from blocks.base import LayerSpec, StageShape


class NoLocalSpec(LayerSpec):
    """Let the blocks follow the down-sampling directly."""

    kind: Literal["none"] = "none"

    def build(self, at: StageShape) -> None:
        """Return None: the stage has no local module."""
        return
