"""Tests of the Triton backend in a process whose kernels are interpreted on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = [
    pytest.mark.smoke,
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1", reason="this is the interpreted process"
    ),
]
FOLDER = Path(__file__).parent


def run_interpreted(*files: str, marked: str = "not gpu and not long") -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", marked, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", "triton", *(str(FOLDER / file) for file in files)],
        cwd=FOLDER.parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels() -> None:
    run_interpreted("test_triton.py")


@pytest.mark.long
def test_kernels_at_the_ends_of_segments() -> None:
    run_interpreted("test_triton.py", marked="long and not gpu")


@pytest.mark.long
def test_golden_scans_every_shape_and_tom_layers() -> None:
    run_interpreted("test_golden.py", "test_causal_conv.py", marked="not gpu")
    run_interpreted("test_backends.py", "../mixers/test_tom.py", marked="not gpu")
