"""Whether a preprocessed dataset can be trained on: its folds name its cases, its files are whole.

This is told from names, sizes and headers, in a moment; `voxels.py` looks at what is in the files.
"""

import pickle
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archspec.nnunet.commands import preprocess_command
from archspec.nnunet.dataset import PATCHES as PATCHES  # it is a file of the data, checked here
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import NUM_FOLDS, SPLITS, check_fold, stored_folds
from blocks.errors import Place, Problem, SpecError

_BLOSC, _NUMPY, _PROPERTIES = ".b2nd", ".npz", ".pkl"
_NAMED = 3
"""Cases that a line names."""


def check_data(dataset: PreprocessedDataset, *, fold: int | None = None) -> None:
    """Refuse what would stop a training of this fold, or of any fold, or leave nothing to score.

    Raises:
        SpecError: nothing is preprocessed, the fold is not there, `splits_final.json` is stale, a
            part is empty or has no foreground, a case trains and validates, or a file is missing or
            cut off; one problem for each.
    """
    cases = preprocessed_cases(dataset)
    folds = stored_folds(dataset)
    if folds is None:
        if fold is not None:
            check_fold(dataset, fold, NUM_FOLDS)
            if len(cases) < NUM_FOLDS:
                raise SpecError(
                    f"{len(cases)} cases, but a split into {NUM_FOLDS} folds needs {NUM_FOLDS}",
                    where=dataset.name,
                )
        check_files(dataset, cases)
        _check_foreground(dataset, {"the dataset": cases})
        return
    if fold is not None:
        check_fold(dataset, fold, len(folds))
    chosen = {
        number: parts
        for number, parts in enumerate(folds)
        if fold is None or number == fold % len(folds)
    }
    named = {case for parts in chosen.values() for part in parts.values() for case in part}
    problems = _missing(dataset, named, cases)
    for number, parts in chosen.items():
        problems += _fold_problems(dataset, parts, number)
    problems += _file_problems(dataset, sorted(named & set(cases)))
    if problems:
        raise SpecError(problems)
    _check_foreground(
        dataset,
        {
            f"what fold {number} {verb}": parts[part]
            for number, parts in chosen.items()
            for part, verb in (("train", "trains on"), ("val", "validates on"))
        },
    )


def preprocessed_cases(dataset: PreprocessedDataset) -> list[str]:
    """Return the names of the cases, also of those that lack some of their files.

    Raises:
        SpecError: there is none, or nnU-Net could not tell how they are stored.
    """
    names = _names(dataset.data_folder)
    if not names:
        raise SpecError(
            "holds no preprocessed cases",
            where=dataset.data_folder,
            suggestion=f"run {preprocess_command(dataset)}",
        )
    endings = {Path(name).suffix for name in names} - {_PROPERTIES, ".npy"}
    if len(endings) > 1:
        raise SpecError(
            f"nnU-Net cannot tell how cases are stored: it holds files that end in "
            f"{' and '.join(sorted(endings))}",
            where=dataset.data_folder,
            suggestion="take away what is no preprocessed case",
        )
    stems = {Path(name).stem for name in names if not name.endswith((f"_seg{_BLOSC}", "_seg.npy"))}
    return sorted(stems - {Path(PATCHES).stem})


def check_files(dataset: PreprocessedDataset, cases: Iterable[str]) -> None:
    """Refuse cases of which a file is missing or not whole, as preprocessing leaves if cut off.

    Raises:
        SpecError: one problem for each such file.
    """
    problems = _file_problems(dataset, cases)
    if problems:
        raise SpecError(problems)


def listed(cases: Collection[str]) -> str:
    """Return the names of cases for a line: all of a few, else some and the number of others."""
    names = sorted(cases)
    more = len(names) - _NAMED
    if more <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {more} more"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _missing(
    dataset: PreprocessedDataset, named: Collection[str], cases: Collection[str]
) -> list[Problem]:
    gone = set(named) - set(cases)
    if not gone:
        return []
    return [
        Problem(
            f"names {listed(gone)}, not among the {len(cases)} preprocessed cases of "
            f"{dataset.configuration}",
            Place(str(dataset.folder / SPLITS)),
            suggestion="take out what is gone, or delete the file and nnU-Net splits anew; or run "
            f"{preprocess_command(dataset)}",
        )
    ]


def _fold_problems(
    dataset: PreprocessedDataset, parts: dict[str, list[str]], number: int
) -> list[Problem]:
    where = Place(str(dataset.folder / SPLITS))
    found = []
    for part, cases in parts.items():
        if not cases:
            found.append(Problem(f"fold {number} has no case in {part!r}", where))
        twice = [case for case, count in Counter(cases).items() if count > 1]
        if twice:
            found.append(
                Problem(f"fold {number} names {listed(twice)} more than once in {part!r}", where)
            )
    both = set(parts["train"]) & set(parts["val"])
    if both:
        found.append(
            Problem(
                f"fold {number} both trains and validates on {listed(both)}",
                where,
                suggestion="its scores would be of cases that the network has seen",
            )
        )
    return found


def _file_problems(dataset: PreprocessedDataset, cases: Iterable[str]) -> list[Problem]:
    """Return a problem for each file that is missing or cut off."""
    folder = dataset.data_folder
    present = set(_names(folder))
    if PATCHES in present:
        wanted = [PATCHES]
    elif any(name.endswith(_NUMPY) for name in present):
        wanted = [
            name
            for case in cases
            for name in (
                f"{case}{_NUMPY}",
                f"{case}{_PROPERTIES}",
                f"{case}.npy",
                f"{case}_seg.npy",
            )
            if name in present or not name.endswith(".npy")  # nnU-Net may have unpacked it
        ]
    else:
        endings = (_BLOSC, f"_seg{_BLOSC}", _PROPERTIES)
        wanted = [f"{case}{ending}" for case in cases for ending in endings]
    found = []
    for name in wanted:
        fault = _fault(folder / name) if name in present else "is missing"
        if fault is not None:
            again = f"preprocess again: {preprocess_command(dataset)}"
            found.append(Problem(fault, Place(str(folder / name)), suggestion=again))
    return found


def _fault(path: Path) -> str | None:
    """Return what is wrong with a file, as far as its head, its end and its size tell."""
    size = path.stat().st_size
    if size == 0:
        return "is empty"
    try:
        if path.suffix == _BLOSC:
            return _blosc_fault(path, size)
        if path.suffix == _PROPERTIES:
            return _pickle_fault(path, size)
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r")
            return None
        with zipfile.ZipFile(path) as archive:  # it looks for the table at the end
            lacking = {"data.npy", "seg.npy"} - set(archive.namelist())
        return (
            f"has no {' and '.join(sorted(lacking))}" if lacking and path.name != PATCHES else None
        )
    except (OSError, ValueError, zipfile.BadZipFile):
        return "cannot be read, or is cut off"


def _blosc_fault(path: Path, size: int) -> str | None:
    """Compare the size with the one that is written in the file's own head.

    Source: github.com/Blosc/c-blosc2, README_CFRAME_FORMAT.rst: magic at 2, frame size at 16.
    """
    with path.open("rb") as file:
        head = file.read(24)
    if head[2:9] != b"b2frame" or len(head) < 24:
        return "is no Blosc2 file"
    whole = int.from_bytes(head[16:24], "big")
    return None if size == whole else f"is cut off: {size:,} of {whole:,} bytes"


def _pickle_fault(path: Path, size: int) -> str | None:
    """Look for the end of a pickle, and for the whole of its first frame, where it has frames."""
    with path.open("rb") as file:
        head = file.read(11)
        file.seek(-1, 2)
        last = file.read(1)
    framed = head[:1] == pickle.PROTO and head[2:3] == pickle.FRAME
    whole = len(head) + int.from_bytes(head[3:], "little") if framed else 0
    return None if last == pickle.STOP and size >= whole else "is cut off"


def _check_foreground(dataset: PreprocessedDataset, parts: dict[str, Sequence[str]]) -> None:
    """Refuse parts in which no case has foreground, as nnU-Net noted when it preprocessed them."""
    if (dataset.data_folder / PATCHES).exists():
        return
    problems = []
    for name, cases in parts.items():
        if not any(_has_foreground(dataset.data_folder / f"{case}{_PROPERTIES}") for case in cases):
            problems.append(
                Problem(
                    f"no case has foreground in {name}: {listed(cases)}",
                    Place(dataset.name),
                    suggestion="are the labels those of dataset.json?",
                )
            )
    if problems:
        raise SpecError(problems)


def _has_foreground(properties: Path) -> bool:
    """Say whether a label or region has voxels, or that is not known.

    nnU-Net lists where each is; a list that has -1 in its name is of all that is annotated.
    """
    try:
        found: Any = pickle.loads(properties.read_bytes())  # as nnU-Net reads it
        locations = found["class_locations"]
    except (KeyError, TypeError):
        return True
    except Exception as error:  # a broken pickle may raise anything
        raise SpecError("cannot be read", where=properties) from error
    kinds = {
        key: value for key, value in locations.items() if not (isinstance(key, tuple) and -1 in key)
    }
    return any(len(value) > 0 for value in kinds.values())
