"""Wrappers: how a mixer and an FFN sit in a block."""

from typing import Annotated

from pydantic import Field

from blocks.wrappers.basic import BasicBlockSpec
from blocks.wrappers.cmmb import CMMBSpec
from blocks.wrappers.plain import PlainBlockSpec
from blocks.wrappers.residual import ResidualBlockSpec

AnyBlock = Annotated[
    ResidualBlockSpec | CMMBSpec | BasicBlockSpec | PlainBlockSpec, Field(discriminator="kind")
]
