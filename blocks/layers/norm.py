"""Normalisations, named by one word in a spec."""

import re
from typing import Annotated

import torch.nn.functional as F
from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticKnownError
from torch import Tensor, nn

from blocks.base import Allowed, SpecError, StageShape

_WORDS = ("none", "instance", "instance_affine", "layer", "batch", "group1", "group(<groups>)")
_GROUP = r"group(?:1|\(([1-9]\d{0,4})\))"
_INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _group_count(word: str) -> int | None:
    match = re.fullmatch(_GROUP, word)
    return None if match is None else int(match[1] or 1)


def _check_word(word: str) -> str:
    if word not in _WORDS[:-1] and _group_count(word) is None:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(_WORDS)})
    return word


class OnePositionError(SpecError):
    """Report a statistic over a single position, which a larger patch would cure."""


Norm = Annotated[
    str,
    AfterValidator(_check_word),
    Allowed(" | ".join(_WORDS)),
    WithJsonSchema(
        {"anyOf": [{"enum": list(_WORDS[:-1])}, {"type": "string", "pattern": f"^{_GROUP}$"}]}
    ),
]


class ChannelLayerNorm(nn.LayerNorm):
    """Normalise the channels of each position alone: (B, C, *grid) -> (B, C, *grid).

    No statistic crosses positions, so this norm gives a local network no view of the whole
    volume, which instance normalisation does.
    """

    def forward(self, input: Tensor) -> Tensor:
        last = input.movedim(1, -1)
        normed = F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.movedim(-1, 1)


def build_norm(word: str, at: StageShape) -> nn.Module:
    """Return the norm called `word` for features of the given shape."""
    if word == "none":
        return nn.Identity()
    if word in ("instance", "instance_affine"):
        return _INSTANCE[at.ndim](at.channels, affine=word == "instance_affine")
    if word == "layer":
        return ChannelLayerNorm(at.channels)
    if word == "batch":
        return _BATCH[at.ndim](at.channels)
    groups = _group_count(word)
    assert groups is not None, word
    return nn.GroupNorm(groups, at.channels)


def check_norm(
    word: str, at: StageShape, *, field: str, instead: str = "layer or group1, "
) -> None:
    """Refuse a norm that cannot work at this shape.

    Raises:
        OnePositionError: an instance or batch norm over one position; `instead` is the advice
            where the norm can be chosen.
        SpecError: groups that do not divide the channels.
    """
    if word in ("instance", "instance_affine", "batch") and all(size == 1 for size in at.grid):
        raise OnePositionError(
            f"{word!r} over a grid of one position has nothing to take statistics of",
            field=field,
            suggestion=f"use {instead}a smaller stride or a larger patch",
            other="patch_size",
        )
    groups = _group_count(word)
    if groups is not None and at.channels % groups:
        raise SpecError(
            f"{word!r} needs channels divisible by {groups}, but there are {at.channels}",
            field=field,
        )
