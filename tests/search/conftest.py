"""A small phantom, preprocessed by real nnU-Net, for the tests that train."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archspec.phantom.reach import ReachTask
from archspec.phantom.writing import write_dataset

NAME = "Dataset902_Small"


@pytest.fixture(scope="session")
def nnunet_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment in which dataset 902 is preprocessed: 10 cases."""
    root = tmp_path_factory.mktemp("nnunet")
    folders = {name: root / name for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    folders["nnUNet_results"] = root / "nnUNet_results"
    for folder in folders.values():
        folder.mkdir()
    environment = {
        **os.environ,
        **{name: str(folder) for name, folder in folders.items()},
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
    }
    raw = folders["nnUNet_raw"] / NAME
    write_dataset(raw, ReachTask(distance=16), num_cases=10, num_test_cases=1, seed=0)
    command = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    line = [str(command), "-d", "902", "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return environment


@pytest.fixture
def dataset_environment(
    nnunet_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Set the variables in this process too."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, nnunet_environment[name])
    return nnunet_environment
