"""Which cases train, which choose between networks, and which are looked at once, at the end."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from archspec.files import read_json
from archspec.nnunet.dataset import PreprocessedDataset
from blocks.errors import SpecError, argument

SPLITS = "splits_final.json"
NUM_FOLDS = 5
"""What nnU-Net cuts the cases into, where there is no such file."""
Folds = list[dict[str, list[str]]]
"""The cases of each fold, under `train` and `val`."""

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
    dataset: PreprocessedDataset,
    *,
    fold: int,
    test_share: float = 0.0,
    seed: int = 0,
    persons: Mapping[str, str] | None = None,
) -> Split:
    """Return the fold that nnU-Net's trainer would use, less test cases taken from its train part.

    The validation part stays the fold's. The test part has `test_share` of all cases of the fold,
    rounded, but at least two; which ones depends on the seed and on the names in the train part.
    With the `persons` of its cases it has whole ones, two at least, of whom the fold validates on
    no case: as many cases, or as few more as whole persons allow.

    Raises:
        SpecError: the fold is not there, the share leaves too few cases, or persons, or a case is
            nobody's.
    """
    splits = read_folds(dataset)
    check_fold(dataset, fold, len(splits))
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
    if persons is None:
        test = set(random.Random(seed).sample(sorted(train), num_test))
    else:
        test = _of_persons(dataset, train, validation, num_test, seed, persons)
        if len(train) - len(test) < _FEWEST_TRAIN or len({persons[case] for case in test}) < 2:
            raise SpecError(
                f"{test_share:g} asks for {num_test} test cases of {dataset.name}, of two persons "
                f"or more: those of whom fold {fold} trains on all cases do not add up to that, "
                f"with {_FEWEST_TRAIN} cases left to train on",
                field="test_share",
                suggestion="give another share, or a splits_final.json that parts no person",
            )
    return Split(
        tuple(case for case in train if case not in test), tuple(validation), tuple(sorted(test))
    )


def _of_persons(
    dataset: PreprocessedDataset,
    train: list[str],
    validation: list[str],
    number: int,
    seed: int,
    persons: Mapping[str, str],
) -> set[str]:
    """Return the cases of persons drawn from those who only train; too few where there are no more.

    Whoever would take them past the number is left out; in the end, the one who does so least.
    """
    unknown = sorted({*train, *validation} - set(persons))
    if unknown:
        raise SpecError(
            f"it is not known whose {unknown[0]} of {dataset.name} is",
            field="groups",
            suggestion="a run goes on with its own dataset and fold",
        )
    validating = {persons[case] for case in validation}
    cases: dict[str, set[str]] = {}
    for case in train:
        if persons[case] not in validating:
            cases.setdefault(persons[case], set()).add(case)
    drawn = sorted(cases)
    random.Random(seed).shuffle(drawn)
    found: set[str] = set()
    left = []
    for person in drawn:
        if len(found) + len(cases[person]) <= number:
            found |= cases[person]
        else:
            left.append(person)
    if len(found) < number and left:
        found |= cases[min(left, key=lambda person: len(cases[person]))]
    return found if len(found) >= number else set()


def check_fold(dataset: PreprocessedDataset, fold: int, num_folds: int) -> None:
    """Refuse a fold that is not there; negative ones count from the last.

    Raises:
        SpecError: see above.
    """
    if not -num_folds <= fold < num_folds:
        raise SpecError(
            f"{dataset.name} has folds 0 to {num_folds - 1}", where=argument("fold", fold)
        )


def read_folds(dataset: PreprocessedDataset) -> Folds:
    """Return nnU-Net's splits, without writing the file that its trainer would write.

    Raises:
        SpecError: the file is no list of folds, or there are too few cases to make one.
    """
    stored = stored_folds(dataset)
    if stored is not None:
        return stored
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = sorted(path.stem for path in dataset.data_folder.glob("*.pkl"))
    if len(cases) < NUM_FOLDS:
        raise SpecError(
            f"{len(cases)} cases, but a split into {NUM_FOLDS} folds needs {NUM_FOLDS}",
            where=dataset.name,
        )
    found: Folds = generate_crossval_split(cases, seed=12345, n_splits=NUM_FOLDS)
    return found


def stored_folds(dataset: PreprocessedDataset) -> Folds | None:
    """Return the folds of the file, as they stand there; None where there is none.

    Raises:
        SpecError: it is no list of folds.
    """
    file = dataset.folder / SPLITS
    if not file.is_file():
        return None
    found = read_json(file)
    if not isinstance(found, list) or not found:
        raise SpecError("must be a list of folds, and hold one", where=file)
    for number, fold in enumerate(found):
        for part in ("train", "val"):
            cases = fold.get(part) if isinstance(fold, dict) else None
            if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
                raise SpecError(f"fold {number} needs a list of cases in {part!r}", where=file)
    return [{part: fold[part] for part in ("train", "val")} for fold in found]
