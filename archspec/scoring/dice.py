"""The Dice score of label maps, and means of scores that may have no value."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dice(prediction: NDArray[Any], reference: NDArray[Any], labels: tuple[int, ...]) -> float:
    """Return 2 |P and R| / (|P| + |R|) of the union of labels; NaN where both are empty."""
    predicted, wanted = np.isin(prediction, labels), np.isin(reference, labels)
    return dice_of_sizes(int((predicted & wanted).sum()), int(predicted.sum()), int(wanted.sum()))


def dice_of_sizes(common: int, predicted: int, wanted: int) -> float:
    """Return the Dice of two masks by their numbers of voxels; NaN where both are empty."""
    size = predicted + wanted
    return 2 * common / size if size else math.nan


def mean(values: Iterable[float]) -> float:
    """Return the mean of what is not NaN; NaN where nothing is left."""
    left = [value for value in values if not math.isnan(value)]
    return sum(left) / len(left) if left else math.nan
