"""Feed-forward networks: modules that work on each position alone."""

from typing import Annotated

from pydantic import Field

from blocks.ffn.mix import MixFFNSpec
from blocks.ffn.mlp import MLPSpec
from blocks.ffn.none import NoFFNSpec

AnyFFN = Annotated[NoFFNSpec | MLPSpec | MixFFNSpec, Field(discriminator="kind")]
