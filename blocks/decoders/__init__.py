"""Decoders: from the encoder's skips to logits."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.decoders.concat import ConcatDecoderSpec
from blocks.decoders.decoder import DecoderSpec
from blocks.decoders.mlp import MLPDecoderSpec
from blocks.decoders.sum import SumDecoderSpec
from blocks.registry import Slot

_Own = SumDecoderSpec | MLPDecoderSpec | ConcatDecoderSpec
DECODERS = Slot[DecoderSpec]("decoder", DecoderSpec, get_args(_Own))
register_decoder = DECODERS.register
if TYPE_CHECKING:
    AnyDecoder = _Own
else:
    AnyDecoder = Annotated[DecoderSpec, DECODERS]
