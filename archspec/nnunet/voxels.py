"""Whether the voxels of a preprocessed case can be trained on: looked at when it is first read."""

import math
import mmap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from archspec.nnunet.commands import preprocess_command
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.scoring.labels import label_values
from blocks.errors import Place, Problem, SpecError

_OUTSIDE = -1
"""What nnU-Net writes into labels outside the mask that it normalises in."""


class CaseError(SpecError):
    """Report a case that no network can be trained on or scored with."""


class LoadsCases(Protocol):
    """nnU-Net's own class for the cases in a folder; images and labels may be read lazily."""

    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return image (C, *grid), labels (1, *grid), those of a cascade, and properties."""


class FirstReads:
    """Which of a dataset's cases were looked at; processes forked off later share it."""

    def __init__(self, dataset: PreprocessedDataset, cases: Sequence[str]) -> None:
        self.dataset = dataset
        self._place = {case: index for index, case in enumerate(sorted(set(cases)))}
        self._done = mmap.mmap(-1, max(len(self._place), 1))

    def check(self, case: str, image: Any, labels: Any) -> None:
        """Look at all voxels of the case, unless that was done.

        Raises:
            CaseError: see `faults`.
        """
        place = self._place.get(case)
        if place is not None and self._done[place]:
            return
        again = f"mend the raw case and preprocess again: {preprocess_command(self.dataset)}"
        where = Place(f"case {case}")
        found = [
            Problem(one, where, suggestion=again) for one in faults(self.dataset, image, labels)
        ]
        if found:
            raise CaseError(found)
        if place is not None:
            self._done[place] = 1


class CheckedCases:
    """nnU-Net's cases, each of them checked when it is loaded for the first time."""

    def __init__(self, cases: LoadsCases, reads: FirstReads) -> None:
        self.identifiers = cases.identifiers
        self._cases = cases
        self._reads = reads

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return what nnU-Net's own method does.

        Raises:
            CaseError: see `faults`.
        """
        found = self._cases.load_case(identifier)
        self._reads.check(identifier, found[0], found[1])
        return found


def faults(dataset: PreprocessedDataset, image: Any, labels: Any) -> list[str]:
    """Return what makes image (C, *grid) and labels (1, *grid) of a case unusable, a line for each.

    Not finite, other channels than those of dataset.json, another grid, or a label that
    dataset.json does not name.
    """
    found = []
    if len(image) != dataset.num_channels:
        found.append(f"image has {len(image)} channels, dataset.json names {dataset.num_channels}")
    if image.shape[1:] != labels.shape[1:]:
        found.append(f"image is of {image.shape[1:]} voxels, its labels of {labels.shape[1:]}")
    for channel in range(len(image)):
        at = f" of channel {channel}" if len(image) > 1 else ""
        found += [f"image holds {what}{at}" for what in _not_finite(np.asarray(image[channel]))]
    return found + _unknown(dataset, np.asarray(labels[:]))


def _not_finite(values: np.ndarray) -> list[str]:
    """Return what the values hold; their sum tells at once that they hold nothing of it."""
    with np.errstate(invalid="ignore"):  # of infinities with two signs
        if math.isfinite(values.sum(dtype=np.float64)):
            return []
    counts = {"NaN": int(np.isnan(values).sum()), "infinite values": int(np.isinf(values).sum())}
    return [f"{what} in {_voxels(count)}" for what, count in counts.items() if count]


def _unknown(dataset: PreprocessedDataset, labels: np.ndarray) -> list[str]:
    names = dataset.dataset_json["labels"]
    known = {value for part in label_values(names).values() for value in part} | {0, _OUTSIDE}
    if "ignore" in names:
        known.add(names["ignore"])
    inside = np.isin(labels, sorted(known))
    if inside.all():
        return []
    values, counts = np.unique(labels[~inside], return_counts=True)
    return [
        f"labels hold {value} in {_voxels(count)}, which dataset.json does not name"
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    ]


def _voxels(count: int) -> str:
    return f"{count:,} voxel{'s' * (count != 1)}"
