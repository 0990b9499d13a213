"""Mixers: modules that mix positions. The union below is the table of contents."""

from typing import Annotated

from pydantic import Field

from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.identity import IdentityMixerSpec
from blocks.mixers.mamba import MambaMixerSpec

AnyMixer = Annotated[
    ConvMixerSpec | MambaMixerSpec | IdentityMixerSpec, Field(discriminator="kind")
]
