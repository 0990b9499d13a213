"""Local modules: what runs on a stage's features before its blocks."""

from typing import Annotated

from pydantic import Field

from blocks.local.gsc import GSCSpec
from blocks.local.none import NoLocalSpec

AnyLocal = Annotated[NoLocalSpec | GSCSpec, Field(discriminator="kind")]
