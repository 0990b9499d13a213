"""The demo as a newcomer runs it, with the figures that it must reach."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_demo_reaches_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    line = [sys.executable, "-m", "archspec", "demo", "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Synthetic data: shows the tool." in done.stdout

    front = list(csv.DictReader((out / "run" / "pareto.csv").open(encoding="utf-8")))
    assert len(front) >= 3
    twins = [(float(row["twin_same"]) + float(row["twin_other"])) / 2 for row in front]
    assert twins[0] <= 0.60 and twins[-1] >= 0.85
    assert all(float(row["either_twin"]) >= 0.9 for row in (front[0], front[-1]))

    masks = sorted(path.name for path in (out / "predictions").glob("*.nii.gz"))
    labels = sorted(path.name for path in (out / "nnUNet_raw").rglob("labelsTs/*.nii.gz"))
    assert masks == labels and len(masks) == 8
    spec = out / "nnUNet_preprocessed" / "Dataset901_Reach" / "archspecDemo.json"
    architecture = json.loads(spec.read_text(encoding="utf-8"))["configurations"]["3d_fullres"]
    assert architecture["architecture"]["network_class_name"] == "archspec.nnunet.ArchSpecNet"

    again = subprocess.run(line, capture_output=True, text=True)
    assert again.returncode == 2
    assert "--force" in again.stderr and again.stderr.count("\n") == 1
