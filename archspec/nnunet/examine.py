"""Read every case of a preprocessed dataset, and say what would go wrong in a training."""

import hashlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archspec.nnunet.check_data import check_data, listed, preprocessed_cases
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import NUM_FOLDS, read_folds, stored_folds
from archspec.nnunet.voxels import faults
from archspec.scoring.labels import scored_labels


@dataclass(frozen=True, slots=True)
class Copies:
    """Cases with equal images, and the folds that train on one and validate on another."""

    cases: list[str]
    folds: list[int]

    def text(self) -> str:
        """Return a line."""
        numbers = ", ".join(map(str, self.folds))
        return (
            f"cases {', '.join(self.cases)} have equal images, but in fold {numbers} one of them "
            "trains and another validates; put them into one part, in splits_final.json, or take "
            "copies out"
        )


@dataclass(frozen=True, slots=True)
class Examined:
    """What all voxels of a dataset say: `faults` by case, and what is odd about others."""

    dataset: str
    configuration: str
    num_cases: int
    faults: dict[str, list[str]]
    copies: list[Copies]
    without_foreground: list[str]

    def text(self) -> str:
        """Return a line for each finding, below one about the dataset."""
        lines = [f"{self.dataset}, {self.configuration}: {self.num_cases} cases read"]
        lines += [f"case {case}: {one}" for case, found in self.faults.items() for one in found]
        lines += [one.text() for one in self.copies]
        if self.without_foreground:
            lines.append(f"note: no foreground in {listed(self.without_foreground)}")
        if not self.faults and not self.copies:
            lines.append("all finite, all labels known, no copies across training and validation")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec doctor --json` prints of a dataset."""
        return asdict(self)


def examine(dataset: PreprocessedDataset) -> Examined:
    """Read all cases of the dataset, one at a time.

    Raises:
        SpecError: as `check_data` for any fold: what cannot be opened is not read.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    check_data(dataset)
    folder, names = str(dataset.data_folder), preprocessed_cases(dataset)
    cases = infer_dataset_class(folder)(folder, list(names))
    classes, _ = scored_labels(dataset.dataset_json)
    foreground = [value for part in classes.values() for value in part]
    found: dict[str, list[str]] = {}
    alike: dict[bytes, list[str]] = defaultdict(list)
    empty = []
    for name in names:
        lazy_image, lazy_labels, _, _ = cases.load_case(name)
        image, labels = np.ascontiguousarray(lazy_image[:]), np.asarray(lazy_labels[:])
        if mistakes := faults(dataset, image, labels):
            found[name] = mistakes
        if not np.isin(labels, foreground).any():
            empty.append(name)
        digest = hashlib.blake2b(repr(image.shape).encode())
        digest.update(image.data)
        alike[digest.digest()].append(name)
    return Examined(
        dataset.name,
        dataset.configuration,
        len(names),
        found,
        _copies([group for group in alike.values() if len(group) > 1], dataset, len(names)),
        empty,
    )


def _copies(groups: list[list[str]], dataset: PreprocessedDataset, num_cases: int) -> list[Copies]:
    """Return the groups that some fold parts, if the dataset is one that is split at all."""
    if not groups or (num_cases < NUM_FOLDS and stored_folds(dataset) is None):
        return []
    found = []
    for group in groups:
        parted = [
            number
            for number, fold in enumerate(read_folds(dataset))
            if set(group) & set(fold["train"]) and set(group) & set(fold["val"])
        ]
        if parted:
            found.append(Copies(group, parted))
    return found
