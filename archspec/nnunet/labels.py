"""The labels of nnU-Net's dataset.json: how many outputs they need, and what nnU-Net refuses.

Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/utilities/label_handling/label_handling.py (2.8.1),
`LabelManager`.
"""

from collections.abc import Mapping
from typing import Any

from archspec.scoring.labels import label_values
from blocks.base import SpecError


def num_segmentation_heads(labels: Mapping[str, Any]) -> int:
    """Return the network's outputs: labels, or regions without background; never `ignore`."""
    return len(_regions(labels)) if _has_regions(labels) else len(_values(labels))


def num_foreground_labels(labels: Mapping[str, Any]) -> int:
    """Return the labels that a cascade's second stage gets as inputs, one channel each."""
    return len(_values(labels) - {0})


def check_labels(labels: Mapping[str, Any], regions_class_order: Any) -> None:
    """Refuse what stops nnU-Net when a training starts, or in its first step.

    Raises:
        SpecError: background is not 0, `ignore` is not the highest label, a value is no whole
            number, there is no foreground, the labels of the regions are missing, or labels that
            are no regions leave a gap: they are channels of the network's output.
    """
    for name, value in labels.items():
        if not all(map(_is_whole, value if isinstance(value, list | tuple) else [value])):
            raise SpecError(
                f"must be integers or lists of them, from 0 on: {name!r} is {value!r}",
                field="labels",
            )
    values = _values(labels)
    if labels.get("background") != 0:
        raise SpecError(
            f"background must be 0, but is {labels.get('background')!r}", field="labels"
        )
    ignore = labels.get("ignore")
    if ignore is not None and not (isinstance(ignore, int) and ignore == max(values) + 1):
        raise SpecError(
            f"ignore must be {max(values) + 1}, above all others, but is {ignore!r}", field="labels"
        )
    if _has_regions(labels) and not _orders(regions_class_order, len(_regions(labels))):
        raise SpecError(
            f"must list {len(_regions(labels))} labels, one for each region, but is "
            f"{regions_class_order!r}",
            field="regions_class_order",
        )
    if not _has_regions(labels) and values != set(range(len(values))):
        raise SpecError(
            f"must be 0 to {len(values) - 1} without a gap, but are "
            f"{', '.join(map(str, sorted(values)))}",
            field="labels",
            suggestion="renumber them here and in the label images, then plan and preprocess again",
        )
    empty = [name for name, part in label_values(labels).items() if not part]
    if empty:
        raise SpecError(f"{empty[0]!r} names no label", field="labels")
    if not values - {0}:
        raise SpecError("there is none above the background, so nothing to find", field="labels")


def _is_whole(value: Any) -> bool:
    """Say whether nnU-Net's `int` takes the value as it is: 2.0 may stand for 2, but not "2"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 and value % 1 == 0


def _orders(value: Any, count: int) -> bool:
    """Say whether a value lists a label for each of so many regions."""
    return isinstance(value, list | tuple) and len(value) == count and all(map(_is_whole, value))


def _values(labels: Mapping[str, Any]) -> set[int]:
    return {value for part in label_values(labels).values() for value in part}


def _has_regions(labels: Mapping[str, Any]) -> bool:
    return any(len(part) > 1 for part in label_values(labels).values())


def _regions(labels: Mapping[str, Any]) -> list[str]:
    return [name for name, part in label_values(labels).items() if set(part) != {0}]
