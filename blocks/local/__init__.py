"""Local modules: what runs on a stage's features before its blocks."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.base import LayerSpec
from blocks.local.gsc import GSCSpec
from blocks.local.none import NoLocalSpec
from blocks.registry import Slot

_Own = NoLocalSpec | GSCSpec
LOCALS = Slot[LayerSpec]("local", LayerSpec, get_args(_Own))
register_local = LOCALS.register
if TYPE_CHECKING:
    AnyLocal = _Own
else:
    AnyLocal = Annotated[LayerSpec, LOCALS]
