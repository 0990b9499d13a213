"""The labels of nnU-Net's dataset.json: how many outputs they need, and what nnU-Net refuses.

Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/utilities/label_handling/label_handling.py (2.8.1),
`LabelManager`.
"""

from collections.abc import Mapping
from typing import Any

from blocks.base import SpecError

Labels = Mapping[str, Any]


def num_segmentation_heads(labels: Labels) -> int:
    """Return the network's outputs: labels, or regions without background; never `ignore`."""
    return len(_regions(labels)) if _has_regions(labels) else len(_values(labels))


def num_foreground_labels(labels: Labels) -> int:
    """Return the labels that a cascade's second stage gets as inputs, one channel each."""
    return len(_values(labels) - {0})


def check_labels(labels: Labels, regions_class_order: Any) -> None:
    """Refuse what stops nnU-Net when a training starts.

    Raises:
        SpecError: background is not 0, `ignore` is not the highest label, a value is no integer,
            or the labels of the regions are missing.
    """
    try:
        values = _values(labels)
    except (TypeError, ValueError) as error:
        raise SpecError(f"labels: must be integers or lists of them: {error}") from None
    if labels.get("background") != 0:
        raise SpecError(f"labels: background must be 0, but is {labels.get('background')!r}")
    ignore = labels.get("ignore")
    if ignore is not None and ignore != max(values) + 1:
        raise SpecError(
            f"labels: ignore must be {max(values) + 1}, above all others, but is {ignore!r}"
        )
    if _has_regions(labels) and len(regions_class_order or ()) != len(_regions(labels)):
        raise SpecError(
            f"regions_class_order: must list {len(_regions(labels))} labels, one for each region, "
            f"but is {regions_class_order!r}"
        )


def _parts(labels: Labels) -> dict[str, set[int]]:
    """Return the values of every label and region but the ignored one."""
    return {
        name: {int(part) for part in value} if isinstance(value, list) else {int(value)}
        for name, value in labels.items()
        if name != "ignore"
    }


def _values(labels: Labels) -> set[int]:
    return {value for part in _parts(labels).values() for value in part}


def _has_regions(labels: Labels) -> bool:
    return any(isinstance(value, list) and len(value) > 1 for value in labels.values())


def _regions(labels: Labels) -> list[str]:
    return [name for name, part in _parts(labels).items() if part != {0}]
