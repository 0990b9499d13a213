"""A rehearsal of what is run where a GPU is lent: in a bare copy of the tree, on the CPU.

Such a machine has PyTorch with Triton, but neither this project installed nor all that it uses.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
ROOT = Path(__file__).parents[1]
ABSENT = ("nnunetv2", "optuna", "monai", "plotly", "nibabel", "matplotlib")
BARE = f"""
import sys

sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tracked files, whose Python finds neither this tree nor `ABSENT`."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("bare")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "bare").mkdir()
    (folder / "bare" / "sitecustomize.py").write_text(BARE, encoding="utf-8")
    return folder


def run_in(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("ARCHSPEC")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=copy,
        env=variables | {"PYTHONPATH": os.pathsep.join([str(copy / "bare"), str(copy)])},
        capture_output=True,
        text=True,
    )


def test_bundled_specs_are_found(copy: Path) -> None:
    done = run_in(
        copy, "-c", "import archspec; print(archspec.load('unet').name, archspec.__file__)"
    )
    name, place = done.stdout.split()
    assert name == "unet" and Path(place).is_relative_to(copy), done.stderr


@pytest.mark.long
def test_every_gpu_test_is_collected(copy: Path) -> None:
    files = ("tests/test_gpu.py", "tests/test_gpu_trials.py", "tests/blocks/scan/test_triton.py")
    done = run_in(copy, "-m", "pytest", "--collect-only", "-m", "gpu", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{file}::" in done.stdout for file in files)


@pytest.mark.long
@pytest.mark.parametrize("stage", range(1, 6))
def test_stage(copy: Path, stage: int) -> None:
    command = ("benchmarks/gpu_suite.py", "--stage", str(stage), "--rehearse", "--out", "results")
    # the limit is of the machine that is lent; this one may be slow
    done = run_in(copy, *command, "--seconds", "3600")
    found = json.loads((copy / "results" / f"gpu_{stage}.json").read_text("utf-8"))
    statuses = {name: piece["status"] for name, piece in found["pieces"].items()}
    if stage == 4:  # there is nothing to compare with
        assert statuses.pop("comparison").startswith("not run: no mamba-ssm")
        assert done.returncode == 1
    assert len(statuses) >= (1 if stage == 4 else 3), done.stdout + done.stderr
    assert set(statuses.values()) == {0}, json.dumps(found, indent=1)
    assert len(list((copy / "results").iterdir())) <= 6


def test_no_gpu_is_said(copy: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = run_in(copy, "benchmarks/gpu_suite.py", "--stage", "1", "--out", "none")
    assert done.returncode == 1
    assert "no CUDA device: nothing was run or measured" in done.stdout
