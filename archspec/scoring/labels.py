"""What a dataset.json says about labels: classes, groups, the ignore label, the files' ending."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archspec.scoring.dice import Labels, scored_labels
from archspec.scoring.masks import MaskFile
from blocks.base import SpecError


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
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SpecError(f"{path}: not JSON: {error}") from error
        try:
            classes, groups = scored_labels(found)
            ignore = found["labels"].get("ignore")
            ignored = None if ignore is None else int(ignore)
            ending = str(found.get("file_ending", ".nii.gz"))
            values = {int(value) for values in classes.values() for value in values}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError(
                f"{path}: labels must map names to a number or a list of them, and groups to names "
                f"of labels ({type(error).__name__}: {error})"
            ) from error
        if not classes or min(values) < 0:
            raise SpecError(f"{path}: labels must name a class above the background")
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
                f"{mask.path}: label {other[0]} is not one of dataset.json's "
                f"({', '.join(map(str, sorted(known)))})"
            )
