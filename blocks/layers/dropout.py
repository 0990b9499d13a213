"""Dropout of whole channels, in two or three spatial dimensions."""

from typing import Annotated

from pydantic import Field
from torch import nn

_DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}

DropoutRate = Annotated[float, Field(ge=0, lt=1)]
"""How often training drops a channel of a sample."""


def build_dropout(rate: float, ndim: int) -> nn.Module:
    """Return channel dropout, or nothing to do at rate 0.

    Source: arXiv 1411.4280, section 3.2.
    """
    return nn.Identity() if rate == 0 else _DROPOUT[ndim](rate)
