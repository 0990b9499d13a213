"""What a dataset.json says about labels: classes, groups, the ignore label, the files' ending."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archspec.files import read_json
from archspec.scoring.masks import MaskFile
from blocks.base import SpecError

Labels = Mapping[str, tuple[int, ...]]
"""The values of every label or region, by name."""


def label_values(labels: Mapping[str, Any]) -> Labels:
    """Return what the `labels` of a dataset.json stand for, background too, without `ignore`.

    Raises:
        TypeError, ValueError: a value is neither an integer nor a list of them.
    """
    return {
        name: tuple(map(int, value)) if isinstance(value, list | tuple) else (int(value),)
        for name, value in labels.items()
        if name != "ignore"
    }


def scored_labels(dataset_json: Mapping[str, Any]) -> tuple[Labels, Labels]:
    """Return label values by class, and by group, from a dataset.json.

    Groups are unions that a dataset wants scored beside its classes: `archspec.groups`, lists of
    class names; archspec's phantoms have them.
    """
    labels = label_values(dataset_json["labels"])
    classes = {name: values for name, values in labels.items() if name != "background"}
    groups = dataset_json.get("archspec", {}).get("groups", {})
    return classes, {
        group: tuple(sorted({value for name in names for value in classes[name]}))
        for group, names in groups.items()
    }


@dataclass(frozen=True, slots=True)
class DatasetLabels:
    """The labels of one dataset; regions are classes of several values."""

    classes: Labels
    groups: Labels
    ignore: int | None
    file_ending: str
    dataset_json: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "DatasetLabels":
        """Read a dataset.json of nnU-Net v2.

        Raises:
            SpecError: no such file, no JSON, or no labels in it.
        """
        found = read_json(path)
        try:
            classes, groups = scored_labels(found)
            ignore = found["labels"].get("ignore")
            ignored = None if ignore is None else int(ignore)
            ending = str(found.get("file_ending", ".nii.gz"))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise SpecError(
                "labels must map names to a number or a list of them, and groups to names of "
                f"labels ({type(error).__name__}: {error})",
                where=path,
            ) from error
        if not classes or min(value for values in classes.values() for value in values) < 0:
            raise SpecError("labels must name a class above the background", where=path)
        return cls(classes, groups, ignored, ending, found)

    @property
    def scored(self) -> Labels:
        """Return classes and groups, in that order."""
        return {**self.classes, **self.groups}

    def check(self, mask: MaskFile, *, predicted: bool) -> None:
        """Check that a mask holds labels of the dataset only; a prediction cannot hold `ignore`.

        Raises:
            SpecError: another label.
        """
        known = {0, *(value for values in self.classes.values() for value in values)}
        if self.ignore is not None and not predicted:
            known.add(self.ignore)
        allowed = np.zeros(int(mask.labels.max()) + 1, dtype=bool)
        allowed[[value for value in known if value < len(allowed)]] = True
        if not allowed[mask.labels].all():
            other = sorted(set(np.unique(mask.labels).tolist()) - known)
            raise SpecError(
                f"label {other[0]} is not one of dataset.json's "
                f"({', '.join(map(str, sorted(known)))})",
                where=mask.path,
            )
