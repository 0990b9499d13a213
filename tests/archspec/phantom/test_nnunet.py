"""Check what nnU-Net makes of a phantom's files: integrity, the patch it plans, equal bits."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archspec.phantom.dataset import write_dataset
from archspec.phantom.task import Task
from archspec.phantom.tasks import TASKS

LEVELS = [(name, task.levels[0]) for name, task in TASKS.items()]


def write(raw: Path, task: Task, seed: int) -> Path:
    return write_dataset(raw / "Dataset904_Phantom", task, num_cases=5, num_test_cases=1, seed=seed)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_files_are_bit_identical_for_a_seed_and_hold_every_channel(
    name: str, level: str, tmp_path: Path
) -> None:
    task = TASKS[name].at_level(level)
    first = hashes(write(tmp_path / "a", task, seed=2))
    assert hashes(write(tmp_path / "b", task, seed=2)) == first
    images = [file for file in first if file.startswith("images")]
    assert len(images) == 6 * len(task.channels)
    assert len({first[file] for file in images}) == len(images)
    content = json.loads((tmp_path / "a/Dataset904_Phantom/dataset.json").read_text())
    assert list(content["channel_names"].values()) == list(task.channels)
    assert content["archspec"]["task"] == name
    assert content["archspec"]["level"] == level
    assert content["archspec"]["seed"] == 2


@pytest.mark.long
def test_another_process_writes_the_same_bits(tmp_path: Path) -> None:
    """Each task once more in a process of its own, with another number of threads."""
    command = [sys.executable, "-m", "archspec", "phantom"]
    for name, level in LEVELS:
        task = TASKS[name].at_level(level)
        here = hashes(write(tmp_path / name, task, seed=1))
        there = tmp_path / f"{name}-again" / "Dataset904_Phantom"
        options = ["--task", name, "--level", level, "--test-cases", "1"]
        options += ["--cases", "5"] if task.num_cases is None else []
        done = subprocess.run(
            [*command, str(there), *options, "--seed", "1"],
            env={**os.environ, "OMP_NUM_THREADS": "3"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert hashes(there) == here


@pytest.mark.long
@pytest.mark.parametrize("control", ["none", "oracle"])
@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_nnunet_accepts_the_dataset(name: str, level: str, control: Any, tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    from dataclasses import replace

    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    task = TASKS[name].at_level(level)
    if control != "none" and not task.decided:
        pytest.skip("the task has no controls")
    spaced = replace(task, control=control, spacing=(5.0, 2.0, 2.0))
    verify_dataset_integrity(str(write(tmp_path, spaced, seed=0)), num_processes=1)


@pytest.mark.long
def test_planned_patches_hold_whole_volumes(tmp_path: Path) -> None:
    """The limits rely on it: nnU-Net's planner takes the volume of each decided task as patch."""
    pytest.importorskip("nnunetv2")
    tasks = {
        910 + index: TASKS[name].at_level(level)
        for index, (name, level) in enumerate(LEVELS)
        if TASKS[name].decided
    }
    for number, task in tasks.items():
        out = tmp_path / "nnUNet_raw" / f"Dataset{number}_Phantom"
        write_dataset(out, task, num_cases=5, num_test_cases=0, seed=0)
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    for folder in folders:
        (tmp_path / folder).mkdir(exist_ok=True)
    environment = {
        **os.environ,
        **{folder: str(tmp_path / folder) for folder in folders},
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
    }
    command = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    line = [str(command), "-d", *map(str, tasks), "-c", "3d_fullres", "--no_pp", "-npfp", "1"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for number, task in tasks.items():
        folder = tmp_path / "nnUNet_preprocessed" / f"Dataset{number}_Phantom"
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        patch = plans["configurations"]["3d_fullres"]["patch_size"]
        assert tuple(patch) == task.shape, task.name


@pytest.mark.long
@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_generators_are_fast(name: str, level: str, tmp_path: Path) -> None:
    """100 volumes of 64^3 in 20 s on two cores: 0.4 s of CPU each, files included."""
    task = TASKS[name].at_level(level)
    began = time.process_time()
    write(tmp_path, task, seed=0)
    seconds = (time.process_time() - began) / 6
    size = int(np.prod(task.shape)) * len(task.channels)
    assert seconds * 64**3 / size < 0.4
