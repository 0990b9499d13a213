"""Wrappers: how a mixer and an FFN sit in a block."""

from blocks.wrappers.residual import ResidualBlockSpec

AnyBlock = ResidualBlockSpec
