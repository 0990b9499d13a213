"""Claims: the figures that others state about a network, with where they stand and how sure."""

from math import isfinite
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from blocks.base import ComponentSpec

Quantity = Literal[
    "parameters",
    "macs",
    "flops",
    "training_memory",
    "inference_memory",
    "inference_time",
    "dice",
    "iou",
    "hd95",
]
Unit = Literal["M", "G", "%", "mm", "MB", "GB", "s", "x"]
Confidence = Literal["published", "code", "second_hand", "unverified", "derived"]

_VALUE = "must be a number, or the source's words where it gives none"


def _check_value(value: object) -> object:
    if isinstance(value, bool | None) or value == "":
        raise ValueError(_VALUE)
    if not isinstance(value, int | str) and not (isinstance(value, float) and isfinite(value)):
        raise ValueError(_VALUE)
    return value


class ClaimSpec(ComponentSpec):
    """State one figure as its source prints it; nothing is built from it, and no hash sees it.

    `what` is the quantity; `unit` scales it: M and G are 1e6 and 1e9, x is a ratio, null the plain
    number (a Dice from 0 to 1). `setting` says in words what it was taken on; left out, it is the
    spec's own `in_channels`, `num_classes` and `patch_size`.

    `confidence` is how the figure got here: `published`, read in the paper or on its project's
    page; `code`, counted from the published code or run with it; `second_hand`, a review, an index
    or another paper says so; `unverified`, attributed to the paper by memory, by a page that errs
    elsewhere, or by none that could be read; `derived`, computed from other claims.
    """

    what: Quantity
    value: Annotated[int | float | str, BeforeValidator(_check_value)]
    unit: Unit | None = None
    setting: str = ""
    source: Annotated[str, Field(min_length=1)]
    confidence: Confidence
