"""`archspec confirm` on a real run: trained by real workers on real nnU-Net data."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from archspec.spec.load import load
from archspec.spec.yaml_file import dump
from search.retrain.confirm import TABLE, confirmed_files
from search.retrain.retrain import read_trained
from search.trials.pictures import PICTURES, read_pictures

SPACE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [24, 32, 32],
    "encoder": {
        "defaults": {"mixer": {"kind": "conv"}, "downsample": {"stride": 4, "kernel_size": 5}},
        "stages": [{"width": {"choice": [2, 4]}}, {"width": 4, "downsample": {"stride": 2}}],
    },
    "decoder": {"kind": "sum"},
    "search": {"steps": 4, "batch_size": 2, "rungs": 2, "eta": 1, "test_share": 0.2},
}


@pytest.mark.long
def test_confirm_trains_and_scores(dataset_environment: dict[str, str], tmp_path: Path) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(SPACE), encoding="utf-8")

    def archspec(*arguments: str) -> str:
        line = [sys.executable, "-W", "ignore", "-m", "archspec", *arguments]
        done = subprocess.run(line, env=dataset_environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    cpu = ("--device", "cpu")
    search = ("search", str(space), "--data", "902", "--trials", "1", "--out", str(out))
    archspec(*search, "--confirm-seeds", "0", *cpu)
    found = json.loads(archspec("confirm", str(out), "--seeds", "2", "--json", *cpu))
    (point,) = found["points"]
    assert len(found["test_cases"]) == 2
    trained = read_trained(out / TABLE)
    assert [one.steps for one in trained] == [4, 4]
    for one, value in zip(trained, point["test"]["seeds"], strict=True):
        assert sorted(one.test) == found["test_cases"]
        assert not set(one.test) & set(one.validation)
        assert sum(scores["mean"] for scores in one.test.values()) / 2 == pytest.approx(value)
        assert all(0 <= scores["mean"] <= 1 for scores in one.validation.values())
    for file in confirmed_files(out, load(out / "trials" / "0000" / "spec.yaml"), PICTURES):
        part, pictures = read_pictures(file)
        assert part == "test" and {one.case for one in pictures} == set(found["test_cases"])
    archspec("report", str(out))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png') == len(found["test_cases"])

    _kill_after_a_line(["confirm", str(out), "--seeds", "4", *cpu], dataset_environment, out)
    killed = (out / TABLE).read_bytes()
    archspec("confirm", str(out), "--seeds", "4", *cpu)
    assert (out / TABLE).read_bytes().startswith(killed)
    assert len({one.key for one in read_trained(out / TABLE)}) == 4
    assert (out / TABLE).read_bytes().count(b"\n") == 4

    before = (out / TABLE).read_bytes()
    text = archspec("confirm", str(out), "--seeds", "2", *cpu)
    assert "trained again with 2 seeds for 4 steps" in text
    assert (out / TABLE).read_bytes() == before, "nothing is trained twice"


def _kill_after_a_line(arguments: list[str], environment: dict[str, str], out: Path) -> None:
    """Start the command, and kill -9 it as soon as it has recorded one more training."""
    lines = (out / TABLE).read_bytes().count(b"\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "archspec", *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while (out / TABLE).read_bytes().count(b"\n") == lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
