"""Which cases train, which choose between networks, and which are looked at once, at the end."""

import json
import math
import random
from dataclasses import dataclass
from typing import Any

from archspec.nnunet.dataset import PreprocessedDataset
from blocks.errors import SpecError, argument

_FEWEST_TEST = 2
"""An interval over cases needs two."""
_FEWEST_TRAIN = 2


@dataclass(frozen=True)
class Split:
    """Names of the cases of each part; no case is in two."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


def split_cases(
    dataset: PreprocessedDataset, *, fold: int, test_share: float = 0.0, seed: int = 0
) -> Split:
    """Return the fold that nnU-Net's trainer would use, less test cases taken from its train part.

    The validation part stays the fold's. The test part has `test_share` of all cases of the fold,
    rounded, but at least two; which ones depends on the seed and on the names in the train part.

    Raises:
        SpecError: the fold is not there, or the share leaves too few cases.
    """
    splits = read_folds(dataset)
    if not -len(splits) <= fold < len(splits):
        raise SpecError(
            f"{dataset.name} has folds 0 to {len(splits) - 1}", where=argument("fold", fold)
        )
    train, validation = list(splits[fold]["train"]), list(splits[fold]["val"])
    if not test_share:
        return Split(tuple(train), tuple(validation))
    num_test = max(math.floor(test_share * (len(train) + len(validation)) + 0.5), _FEWEST_TEST)
    if len(train) - num_test < _FEWEST_TRAIN:
        raise SpecError(
            f"{test_share:g} takes {num_test} of the {len(train)} training cases of fold {fold} of "
            f"{dataset.name}, and {_FEWEST_TRAIN} must be left to train on",
            field="test_share",
            suggestion="give a smaller share, or 0",
        )
    test = set(random.Random(seed).sample(sorted(train), num_test))
    return Split(
        tuple(case for case in train if case not in test), tuple(validation), tuple(sorted(test))
    )


def read_folds(dataset: PreprocessedDataset) -> list[dict[str, Any]]:
    """Return nnU-Net's splits, without writing the file that its trainer would write."""
    file = dataset.folder / "splits_final.json"
    if file.is_file():
        splits: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return splits
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = sorted(path.stem for path in dataset.data_folder.glob("*.pkl"))
    if len(cases) < 5:
        raise SpecError(f"{len(cases)} cases, but a split into 5 folds needs 5", where=dataset.name)
    found: list[dict[str, Any]] = generate_crossval_split(cases, seed=12345, n_splits=5)
    return found
