"""Phantom datasets for experiments, preprocessed by stock nnU-Net in a folder of their own.

Cases are split three ways by their number: training, validation, test. Fold 0 of the split file
validates on the validation cases; the last fold on the test cases, which are touched once.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from archspec.nnunet.dataset import PreprocessedDataset, dataset_id, find_dataset
from archspec.phantom.axis import AxisTask
from archspec.phantom.dataset import write_case, write_dataset
from archspec.phantom.painting import Side
from archspec.phantom.reach import ReachTask
from archspec.phantom.task import Task

_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_DONE = "split.json"


@dataclass(frozen=True)
class Split:
    """How many cases of each kind; `subsets` are further training sets, one fold for each."""

    train: int
    validation: int
    test: int
    subsets: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test

    def folds(self) -> list[dict[str, list[str]]]:
        """Return nnU-Net's split: all training cases, then the subsets, then the test cases."""
        names = [f"case_{number:04d}" for number in range(1, self.total + 1)]
        train, rest = names[: self.train], names[self.train :]
        validation, test = rest[: self.validation], rest[self.validation :]
        sizes = (self.train, *self.subsets)
        folds = [{"train": train[:size], "val": validation} for size in sizes]
        return [*folds, {"train": train, "val": test}]


def enter(folder: Path) -> None:
    """Point nnU-Net's variables below the folder, for this process and those it starts."""
    for name in _VARIABLES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / name)
    # one process for nnU-Net: its pools cost more than the work they share here
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}


def prepare(name: str, task: Task, split: Split, *, seed: int) -> PreprocessedDataset:
    """Write and preprocess a dataset below nnU-Net's folders, unless it is there already.

    Where a landmark decides, test cases come in pairs that differ in its side alone, so that who
    does not see it gets exactly a half, whatever else sides happen to go with.

    Raises:
        RuntimeError: nnU-Net failed, or planned a patch that is not the whole volume.
    """
    record = {"task": task.metadata(), "folds": split.folds(), "seed": seed, "pairs": True}
    folder = _folder("nnUNet_preprocessed") / name
    done = folder / _DONE
    if not done.is_file() or json.loads(done.read_text()) != json.loads(json.dumps(record)):
        raw = _folder("nnUNet_raw") / name
        write_dataset(raw, task, num_cases=split.total, num_test_cases=0, seed=seed, force=True)
        _pair_test_cases(raw, task, split, seed=seed)
        command = str(Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess")
        line = [command, "-d", str(dataset_id(name)), "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
        ended = subprocess.run(line, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"nnU-Net could not preprocess {name}: {ended.stderr[-2000:]}")
        (folder / "splits_final.json").write_text(json.dumps(split.folds()))
        done.write_text(json.dumps(record))
    dataset = find_dataset(name)
    if dataset.patch_size != task.shape:
        raise RuntimeError(
            f"nnU-Net planned the patch {dataset.patch_size} for volumes of {task.shape}"
        )
    return dataset


def _pair_test_cases(raw: Path, task: Task, split: Split, *, seed: int) -> None:
    """Replace every second test case by the one before with the landmark on the other side."""
    if not isinstance(task, ReachTask | AxisTask):
        return
    first = split.train + split.validation + 1
    for number in range(first, split.total, 2):
        rng = np.random.default_rng([seed, number])
        if isinstance(task, ReachTask):
            seen = task.draw(rng)
            volume = task.render(replace(seen, landmark_side=_other(seen.landmark_side)), rng)
        else:
            drawn = task.draw(rng)
            sides = list(drawn.sides)
            decides = task.levels.index(task.direction)
            sides[decides] = _other(sides[decides])
            volume = task.render(replace(drawn, sides=(sides[0], sides[1], sides[2])), rng)
        folders = raw / "imagesTr", raw / "labelsTr"
        write_case(*folders, f"case_{number + 1:04d}", volume, task.spacing)


def _other(side: Side) -> Side:
    return -1 if side == 1 else 1


def _folder(variable: str) -> Path:
    return Path(os.environ[variable])
