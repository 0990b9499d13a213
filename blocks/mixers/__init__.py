"""Mixers: modules that mix positions. The union below is the table of contents."""

from typing import Annotated

from pydantic import Field

from blocks.mixers.attention import AttentionMixerSpec
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.identity import IdentityMixerSpec
from blocks.mixers.mamba import MambaMixerSpec
from blocks.mixers.tom import TomMixerSpec

AnyMixer = Annotated[
    ConvMixerSpec | MambaMixerSpec | TomMixerSpec | AttentionMixerSpec | IdentityMixerSpec,
    Field(discriminator="kind"),
]
