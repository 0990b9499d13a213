"""Claims: the figures that others state about a network, with where they stand and how sure."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from blocks.base import Allowed, ComponentSpec, Width, is_count

Quantity = Literal[
    "parameters",
    "macs",
    "flops",
    "training_memory",
    "inference_memory",
    "training_time",
    "inference_time",
    "co2",
    "dice",
    "iou",
    "hd95",
    "detected_length",
    "detected_branches",
]
Unit = Literal["M", "G", "%", "mm", "MB", "GB", "s", "h", "x"]
Confidence = Literal["published", "code", "second_hand", "unverified", "derived"]
Text = Annotated[str, Field(min_length=1)]

MAX_PATCH_AXIS = 8192
_MAX_VALUE = 1e100
_VALUE = "must be a number, or the source's words where it gives none, up to 1e100"


def _check_patch(value: object) -> object:
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise ValueError("must be a list of 2 or 3 sizes in voxels, e.g. [96, 96, 96]")
    if not all(is_count(size, most=MAX_PATCH_AXIS) for size in value):
        raise ValueError(f"sizes must be positive integers, in voxels, at most {MAX_PATCH_AXIS}")
    return value


_SIZE = {"type": "integer", "minimum": 1, "maximum": MAX_PATCH_AXIS}
PatchSize = Annotated[
    tuple[int, ...],
    BeforeValidator(_check_patch),
    Allowed("2 or 3 integers >= 1, in voxels"),
    WithJsonSchema({"type": "array", "items": _SIZE, "minItems": 2, "maxItems": 3}),
]
"""A patch size as a spec states it."""


def _check_value(value: object) -> object:
    if isinstance(value, bool | None) or value == "":
        raise ValueError(_VALUE)
    if not isinstance(value, int | float | str):
        raise ValueError(_VALUE)
    if not isinstance(value, str) and not abs(value) <= _MAX_VALUE:  # nan is not either
        raise ValueError(_VALUE)
    return value


class ClaimSizes(ComponentSpec):
    """The sizes that a figure was taken at; what is left out is the spec's own.

    `batch` is that of training memory; everything else is one forward pass at batch 1.
    """

    in_channels: Width | None = None
    num_classes: Width | None = None
    patch_size: PatchSize | None = None
    batch: Width = 2


class ClaimSpec(ComponentSpec):
    """State one figure as its source prints it; nothing is built from it, and no hash sees it.

    `what` is the quantity; `unit` scales it: M and G are 1e6 and 1e9, x is a ratio, null the plain
    number (a Dice from 0 to 1). `dataset` is the one that a result was measured on, `setting` says
    in words what the figure was taken on, `at` in sizes, which `archspec fidelity` builds; left
    out, they are the spec's own `in_channels`, `num_classes` and `patch_size`. `against` is, for a
    ratio, the plain number that ours divides. `note` is why the figure is not what is built here,
    where that is known.

    `confidence` is how the figure got here: `published`, read in the paper or on its project's
    page; `code`, counted from the published code or run with it; `second_hand`, a review, an index
    or another paper says so; `unverified`, attributed to the paper by memory, by a page that errs
    elsewhere, or by none that could be read; `derived`, computed from other claims.
    """

    what: Quantity
    value: Annotated[int | float | str, BeforeValidator(_check_value)]
    unit: Unit | None = None
    setting: str = ""
    dataset: str = ""
    at: ClaimSizes = ClaimSizes()
    against: Annotated[float, Field(gt=0, le=_MAX_VALUE)] | None = None
    source: Text
    confidence: Confidence
    note: str = ""
