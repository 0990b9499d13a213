"""Skips: what happens to a stage's features on their way to the decoder."""

from blocks.skip.transform import SkipSpec

AnySkip = SkipSpec
