"""The examples of searches without nnU-Net: each a short page that trains what it says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("png_cases", "monai_cases")


def write_cases(folder: Path, name: str, count: int) -> None:
    """Write noise with a bright square or cube in it, and where that is."""
    random = np.random.default_rng(0)
    for number in range(count):
        label = np.zeros((16, 20) if name == "png_cases" else (16, 20, 24), np.uint8)
        label[(slice(4, 12),) * label.ndim] = 1
        image = 100 * label + random.integers(0, 99, label.shape, np.uint8)
        for part, array in (("images", image), ("labels", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            if name == "png_cases":
                Image.fromarray(array).save(folder / part / f"case_{number}.png")
            else:
                volume = nibabel.Nifti1Image(array, np.eye(4))
                nibabel.save(volume, folder / part / f"case_{number}.nii.gz")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_trains(
    name: str, imported: Callable[[Path], Any], in_this_process: None, tmp_path: Path
) -> None:
    file = EXAMPLES / f"{name}.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    write_cases(tmp_path, name, 5)
    study = imported(file).run(tmp_path, tmp_path / "run", trials=1, steps=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert len(record["cases"]["patch_size"]) == (2 if name == "png_cases" else 3)
    assert (tmp_path / "run" / "confirmed.json").is_file(), "its test cases are scored"


def test_batches_depend_on_the_global_generators_alone(
    imported: Callable[[Path], Any], tmp_path: Path
) -> None:
    for name, cases in (("png_cases", "PngCases"), ("monai_cases", "MonaiCases")):
        write_cases(tmp_path / name, name, 5)
        made = getattr(imported(EXAMPLES / f"{name}.py"), cases)(tmp_path / name)
        first, second = (made.batches([[1] * 3, [2] * 3], deep_supervision=False) for _ in "ab")
        next(second)
        for batches in (first, second):
            np.random.seed(3)
            batch = next(batches)
            if batches is first:
                wanted = batch
        assert all(one.equal(other) for one, other in zip(wanted, batch, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_a_script(name: str, tmp_path: Path) -> None:
    """Its workers are processes of their own, which find its classes."""
    write_cases(tmp_path, name, 5)
    code = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    short = code.replace("trials: int = 20, steps: int = 1000", "trials: int = 2, steps: int = 4")
    assert short != code
    script = tmp_path / f"{name}.py"
    script.write_text(short, encoding="utf-8")
    line = [sys.executable, script, tmp_path, tmp_path / "run"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "trials").glob("*/checkpoint.pt"))) == 2
