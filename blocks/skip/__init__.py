"""Skips: what happens to a stage's features on their way to the decoder."""

from typing import TYPE_CHECKING, Annotated

from blocks.registry import Slot
from blocks.skip.transform import SkipSpec

SKIPS = Slot[SkipSpec]("skip", SkipSpec, (SkipSpec,))
if TYPE_CHECKING:
    AnySkip = SkipSpec
else:
    AnySkip = Annotated[SkipSpec, SKIPS]
