"""Mixers: modules that mix positions. The union below is the table of contents."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.base import LayerSpec
from blocks.mixers.attention import AttentionMixerSpec
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.cycle import CycleMixerSpec
from blocks.mixers.identity import IdentityMixerSpec
from blocks.mixers.mamba import MambaMixerSpec
from blocks.mixers.tom import TomMixerSpec
from blocks.registry import Slot

_Own = (
    ConvMixerSpec
    | MambaMixerSpec
    | TomMixerSpec
    | AttentionMixerSpec
    | IdentityMixerSpec
    | CycleMixerSpec
)
MIXERS = Slot[LayerSpec]("mixer", LayerSpec, get_args(_Own))
register_mixer = MIXERS.register
if TYPE_CHECKING:
    AnyMixer = _Own
else:
    AnyMixer = Annotated[LayerSpec, MIXERS]
