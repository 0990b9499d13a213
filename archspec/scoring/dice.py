"""Dice scores of label maps, per class and for unions of classes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = Mapping[str, tuple[int, ...]]


def scored_labels(dataset_json: Mapping[str, Any]) -> tuple[Labels, Labels]:
    """Return label values by class, and by group, from a dataset.json.

    Groups are unions that a dataset wants scored beside its classes: `archspec.groups`, lists of
    class names; archspec's phantoms have them.
    """
    classes = {
        name: tuple(value) if isinstance(value, list | tuple) else (int(value),)
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }
    groups = dataset_json.get("archspec", {}).get("groups", {})
    return classes, {
        group: tuple(sorted({value for name in names for value in classes[name]}))
        for group, names in groups.items()
    }


def dice(prediction: NDArray[Any], reference: NDArray[Any], labels: tuple[int, ...]) -> float:
    """Return 2 |P and R| / (|P| + |R|) of the union of labels; NaN where both are empty."""
    predicted, wanted = np.isin(prediction, labels), np.isin(reference, labels)
    size = int(predicted.sum() + wanted.sum())
    return 2 * int((predicted & wanted).sum()) / size if size else math.nan


def mean_dice(
    cases: Iterable[tuple[NDArray[Any], NDArray[Any]]], labels: Labels
) -> dict[str, float]:
    """Return the mean over cases (prediction, reference) of each entry's Dice, NaN ignored."""
    scores = [[dice(p, r, values) for values in labels.values()] for p, r in cases]
    means = [mean([row[column] for row in scores]) for column in range(len(labels))]
    return dict(zip(labels, means, strict=True))


def mean(values: Iterable[float]) -> float:
    """Return the mean of what is not NaN; NaN where nothing is left."""
    left = [value for value in values if not math.isnan(value)]
    return sum(left) / len(left) if left else math.nan
