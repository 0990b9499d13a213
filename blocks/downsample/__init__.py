"""Down-sampling: how a stage enters its grid."""

from typing import TYPE_CHECKING, Annotated

from blocks.downsample.conv import DownsampleSpec
from blocks.downsample.entry import EntrySpec
from blocks.registry import Slot

DOWNSAMPLES = Slot[EntrySpec]("downsample", EntrySpec, (DownsampleSpec,))
register_downsample = DOWNSAMPLES.register
if TYPE_CHECKING:
    AnyDownsample = DownsampleSpec
else:
    AnyDownsample = Annotated[EntrySpec, DOWNSAMPLES]
