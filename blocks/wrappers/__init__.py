"""Wrappers: how a mixer and an FFN sit in a block."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.registry import Slot
from blocks.wrappers.basic import BasicBlockSpec
from blocks.wrappers.block import BlockSpec
from blocks.wrappers.cmmb import CMMBSpec
from blocks.wrappers.convnext import ConvNeXtBlockSpec
from blocks.wrappers.plain import PlainBlockSpec
from blocks.wrappers.residual import ResidualBlockSpec

_Own = ResidualBlockSpec | CMMBSpec | BasicBlockSpec | PlainBlockSpec | ConvNeXtBlockSpec
BLOCKS = Slot[BlockSpec]("block", BlockSpec, get_args(_Own))
register_block = BLOCKS.register
if TYPE_CHECKING:
    AnyBlock = _Own
else:
    AnyBlock = Annotated[BlockSpec, BLOCKS]
