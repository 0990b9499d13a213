"""Posts: what follows the blocks of a stage."""

from typing import TYPE_CHECKING, Annotated, get_args

from blocks.base import LayerSpec
from blocks.post.conv import ConvPostSpec
from blocks.post.mixer import MixerPostSpec
from blocks.post.none import NoPostSpec
from blocks.registry import Slot

_Own = NoPostSpec | ConvPostSpec | MixerPostSpec
POSTS = Slot[LayerSpec]("post", LayerSpec, get_args(_Own))
register_post = POSTS.register
if TYPE_CHECKING:
    AnyPost = _Own
else:
    AnyPost = Annotated[LayerSpec, POSTS]
