"""Write a phantom task as an nnU-Net raw dataset."""

import gzip
import json
import re
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from archspec.files import make_folder, replacing_folder, write_bytes, write_text
from archspec.phantom.painting import Point
from archspec.phantom.task import Task, Volume
from blocks.base import SpecError

# Test cases count from here, so a larger training set leaves them as they are.
_FIRST_TEST_INDEX = 9001
_MAX_INDEX = 9999
# Whole numbers in the file keep it small and the same on every machine.
_FILE_UNITS = 1000


def write_dataset(
    out: Path,
    task: Task,
    *,
    num_cases: int,
    num_test_cases: int,
    seed: int,
    force: bool = False,
) -> Path:
    """Write the dataset folder `out`, bit-identical for a task and a seed, and return it.

    The cases are written beside `out` and moved there when complete. Training case i and test case
    i do not depend on how many cases there are.

    Raises: SpecError for a folder name that nnU-Net would not find, too few or too many cases, a
        negative seed, or an existing `out` that is not empty (unless `force`, which replaces it).
    """
    out = Path(out)
    _check(out, num_cases=num_cases, num_test_cases=num_test_cases, seed=seed, force=force)
    if task.num_cases is not None and num_cases != task.num_cases:
        raise SpecError(
            f"level {task.level} of task {task.name} has {task.num_cases} cases, got {num_cases}",
            field="num_cases",
        )
    with replacing_folder(out) as draft:
        _write_cases(draft, "Tr", task, range(1, num_cases + 1), seed=seed)
        test_indices = range(_FIRST_TEST_INDEX, _FIRST_TEST_INDEX + num_test_cases)
        _write_cases(draft, "Ts", task, test_indices, seed=seed)
        content = _dataset_json(task, num_cases=num_cases, seed=seed)
        write_text(draft / "dataset.json", json.dumps(content, indent=2) + "\n")
    return out


def _check(out: Path, *, num_cases: int, num_test_cases: int, seed: int, force: bool) -> None:
    if not re.fullmatch(r"Dataset(\d{3}|[1-9]\d{3})_[A-Za-z0-9_-]+", out.name):
        raise SpecError(
            "the folder's name must be 'Dataset', an id of three digits or of four that do not "
            f"start with 0, '_' and a name of letters, digits, '_' or '-', got {out.name!r}",
            field="out",
            suggestion="use e.g. Dataset901_Reach",
        )
    if not 5 <= num_cases < _FIRST_TEST_INDEX:
        raise SpecError(
            f"must lie in 5..{_FIRST_TEST_INDEX - 1}, since nnU-Net splits the cases into 5 folds, "
            f"got {num_cases}",
            field="num_cases",
            suggestion="use e.g. 40",
        )
    most_test_cases = _MAX_INDEX - _FIRST_TEST_INDEX + 1
    if not 0 <= num_test_cases <= most_test_cases:
        raise SpecError(
            f"must lie in 0..{most_test_cases}, got {num_test_cases}",
            field="num_test_cases",
            suggestion="use e.g. 8",
        )
    if seed < 0:
        raise SpecError(f"must be at least 0, got {seed}", field="seed", suggestion="use e.g. 0")
    if out.exists() and not out.is_dir():
        raise SpecError(
            f"must be a folder, got the file {out}", field="out", suggestion="choose another place"
        )
    if out.is_dir() and any(out.iterdir()) and not force:
        raise SpecError(
            f"must not exist or be empty, got {out} with files in it",
            field="out",
            suggestion="choose another name, or `force` to replace it",
        )


def _write_cases(draft: Path, split: str, task: Task, indices: range, *, seed: int) -> None:
    images, labels = draft / f"images{split}", draft / f"labels{split}"
    make_folder(images)
    make_folder(labels)
    for index in indices:
        rng = np.random.default_rng([seed, index])
        write_case(images, labels, f"case_{index:04d}", task.sample(rng), task.spacing)


def write_case(images: Path, labels: Path, name: str, volume: Volume, spacing: Point) -> None:
    """Write one case, a file per channel and its labels, into folders that are there."""
    for channel, values in enumerate(volume.image):
        image = np.rint(values * _FILE_UNITS).astype(np.int16)
        _write_nifti(images / f"{name}_{channel:04d}.nii.gz", image, spacing)
    _write_nifti(labels / f"{name}.nii.gz", volume.label, spacing)


def _write_nifti(path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing: Point) -> None:
    """Store (D, H, W) with its axes reversed, since nnU-Net's readers reverse them again."""
    affine = np.diag([*reversed(spacing), 1.0])
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine)
    # The time is fixed and the name left out, so equal volumes give equal files.
    write_bytes(path, gzip.compress(image.to_bytes(), mtime=0))


def _dataset_json(task: Task, *, num_cases: int, seed: int) -> dict[str, object]:
    """Return nnU-Net's description; it ignores the key 'archspec'."""
    return {
        "channel_names": {str(index): name for index, name in enumerate(task.channels)},
        "labels": dict(task.labels),
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
        "archspec": {
            **task.metadata(),
            "seed": seed,
            "groups": {name: list(members) for name, members in task.groups.items()},
        },
    }
