"""Posts: what follows the blocks of a stage."""

from typing import Annotated

from pydantic import Field

from blocks.post.conv import ConvPostSpec
from blocks.post.none import NoPostSpec

AnyPost = Annotated[NoPostSpec | ConvPostSpec, Field(discriminator="kind")]
