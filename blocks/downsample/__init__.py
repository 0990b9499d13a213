"""Down-sampling: how a stage enters its grid."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.downsample.conv import DownsampleSpec
from blocks.downsample.entry import EntrySpec
from blocks.downsample.mednext import MedNeXtDownsampleSpec
from blocks.downsample.residual import ResidualDownsampleSpec
from blocks.registry import Slot

_Own = DownsampleSpec | MedNeXtDownsampleSpec | ResidualDownsampleSpec
DOWNSAMPLES = Slot[EntrySpec]("downsample", EntrySpec, get_args(_Own))
register_downsample = DOWNSAMPLES.register
if TYPE_CHECKING:
    AnyDownsample = _Own
else:
    AnyDownsample = Annotated[EntrySpec, DOWNSAMPLES]
