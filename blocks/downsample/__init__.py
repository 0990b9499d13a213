"""Down-sampling: how a stage enters its grid."""

from blocks.downsample.conv import DownsampleSpec

AnyDownsample = DownsampleSpec
