"""Feed-forward networks: modules that work on each position alone."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.base import LayerSpec
from blocks.ffn.mix import MixFFNSpec
from blocks.ffn.mlp import MLPSpec
from blocks.ffn.none import NoFFNSpec
from blocks.registry import Slot

_Own = NoFFNSpec | MLPSpec | MixFFNSpec
FFNS = Slot[LayerSpec]("ffn", LayerSpec, get_args(_Own))
register_ffn = FFNS.register
if TYPE_CHECKING:
    AnyFFN = _Own
else:
    AnyFFN = Annotated[LayerSpec, FFNS]
