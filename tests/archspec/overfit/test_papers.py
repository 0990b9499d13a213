"""The three papers' networks, shrunk, learn a patch of a phantom that nnU-Net preprocessed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archspec.cli.main import app
from archspec.phantom.dataset import write_dataset
from archspec.phantom.reach import ReachTask

pytest.importorskip("nnunetv2")

pytestmark = pytest.mark.long

_WIDTHS = [f"encoder.stages.{i}.width={width}" for i, width in enumerate((8, 16, 16, 32))]
_DEPTHS = [f"encoder.stages.{i}.depth=1" for i in range(4)]
# a quarter of the resolution, so its cap is below 1, and a patch that divides by 32
_FORMER = [f"encoder.stages.{i}.width={width}" for i, width in enumerate((18, 24, 36, 48))]
NETWORKS = {
    "segmamba": ([*_WIDTHS, *_DEPTHS, "decoder.bottleneck_width=32"], "16,32,48"),
    "segresmamba": ([*_WIDTHS, *_DEPTHS], "16,32,48"),
    "segmaformer": ([*_FORMER, "decoder.width=48"], "32,32,64"),
}
TOM = ["forward", "reverse", "inter_slice"]
DIRECTIONS = {"segmamba": [TOM] * 4, "segresmamba": [TOM] * 4, "segmaformer": [["forward"]] * 5}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set nnU-Net's folders, with a phantom of five cases preprocessed by its own command."""
    root = tmp_path_factory.mktemp("overfit")
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    variables = {name: str(root / name) for name in folders}
    for name in folders:
        (root / name).mkdir()
    task = ReachTask()
    write_dataset(
        root / "nnUNet_raw" / "Dataset901_Reach", task, num_cases=5, num_test_cases=0, seed=0
    )
    command = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    small = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(command), "-d", "901", "-c", "3d_fullres", "-np", "1", "-npfp", "1"],
        env=os.environ | variables | small,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize("name", NETWORKS)
def test_reached(phantom: None, name: str) -> None:
    overrides, size = NETWORKS[name]
    changes = [word for change in overrides for word in ("-s", change)]
    line = [name, "--data", "901", "--case", "case_0002", "--patch", size, *changes]
    done = CliRunner().invoke(
        app, ["overfit", *line, "--device", "cpu", "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["share"] >= 0.99
    assert (found["cap"]["mean"] < 1) == (name == "segmaformer")
    assert found["cap"]["mean"] > 0.95
    assert list(map(list, found["directions"].values())) == DIRECTIONS[name]
    assert found["dead_directions"] == found["parameters_without_gradient"] == []
