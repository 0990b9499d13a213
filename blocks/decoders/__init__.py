"""Decoders: from the encoder's skips to logits."""

from typing import Annotated

from pydantic import Field

from blocks.decoders.concat import ConcatDecoderSpec
from blocks.decoders.mlp import MLPDecoderSpec
from blocks.decoders.sum import SumDecoderSpec

AnyDecoder = Annotated[
    SumDecoderSpec | MLPDecoderSpec | ConcatDecoderSpec, Field(discriminator="kind")
]
