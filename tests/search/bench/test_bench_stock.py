"""Stock trainings: their summaries, their process, and the whole way through real nnU-Net."""

import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.bench.arena import NetworkOptions, arena
from search.bench.run import bench
from search.bench.settings import BenchTask
from search.bench.stock import read_summary
from search.retrain.retrain import Progress

SUMMARY = """
{"foreground_mean": {"Dice": 0.5}, "mean": {"(1, 2)": {"Dice": 0.7}, "2": {"Dice": NaN}},
 "metric_per_case": [
  {"metrics": {"(1, 2)": {"Dice": 0.7}, "2": {"Dice": NaN}},
   "prediction_file": "/p/a.b.nii.gz", "reference_file": "/r/a.b.nii.gz"},
  {"metrics": {"(1, 2)": {"Dice": 0.5}, "2": {"Dice": 0.25}},
   "prediction_file": "/p/case_1.nii.gz", "reference_file": "/r/case_1.nii.gz"}]}
"""


def test_a_summary_is_read(dataset: PreprocessedDataset, tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    description = {**dataset.dataset_json, "labels": labels, "file_ending": ".nii.gz"}
    own, file = replace(dataset, dataset_json=description), tmp_path / "summary.json"
    assert read_summary(file, own) is None
    file.write_text(SUMMARY, encoding="utf-8")
    found = read_summary(file, own)
    assert found is not None and list(found) == ["a.b", "case_1"]
    assert found["case_1"] == {"mean": 0.375, "whole": 0.5, "core": 0.25}
    assert found["a.b"]["mean"] == 0.7 and math.isnan(found["a.b"]["core"])
    file.write_text(SUMMARY[:200], encoding="utf-8")
    assert read_summary(file, own) is None, "a kill cut it off"


def test_the_process_ends_with_its_owner() -> None:
    code = (
        "import threading, search.bench.nnunet_train as m\n"
        "threading.Thread(target=m._end_with_owner, daemon=True).start()\n"
        "print('up', flush=True); threading.Event().wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
        cwd=Path(archspec.__file__).parents[1],
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def tree(name: str, width: int) -> dict[str, Any]:
    return {
        "name": name,
        "patch_size": [24, 32, 32],
        "encoder": {
            "stages": [
                {"width": width, "mixer": {"kind": "conv"}},
                {"width": width, "mixer": {"kind": "conv"}},
            ]
        },
        "decoder": {"kind": "sum"},
        "training": {"epochs": 2, "iterations": 2},
    }


@pytest.mark.long
def test_stock_trainings_go_on_and_are_compared(
    dataset_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessed = tmp_path / "preprocessed"  # plans are written there
    shutil.copytree(find_dataset("902").folder, preprocessed / "Dataset902_Small")
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    monkeypatch.setenv("nnUNet_compile", "f")
    words = []
    for name, width in (("narrow", 2), ("wide", 4)):
        words.append(str(tmp_path / f"{name}.yaml"))
        Path(words[-1]).write_text(dump(tree(name, width)), encoding="utf-8")
    networks = arena(words, find_dataset("902"), NetworkOptions())
    task = BenchTask(
        arenas=(networks,), folder=tmp_path / "out", folds=(0,), seeds=1, stock=True, batch_size=2
    )

    def stop_at_the_second(progress: Progress) -> None:
        if progress.done == 1 and progress.text == "nnUNetv2_train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(task, on_progress=stop_at_the_second)
    (first,) = task.folder.glob("nnUNet_results/seed_0/*/*narrow*/fold_0/validation/summary.json")
    before = first.stat().st_mtime_ns
    found = bench(task, resume=True)
    assert not found.failed and first.stat().st_mtime_ns == before
    for one in found.standings:
        files = f"nnUNet_results/seed_0/*/*{one.network}*/fold_0/validation/summary.json"
        (file,) = task.folder.glob(files)
        cases = json.loads(file.read_text(encoding="utf-8"))["metric_per_case"]
        dice = [[label["Dice"] for label in case["metrics"].values()] for case in cases]
        assert len(dice) == 2
        assert one.mean == pytest.approx(sum(sum(own) / len(own) for own in dice) / len(dice))
        assert one.seconds is not None and one.seconds > 0
    assert found.settings.steps is None and len(found.differences) == 1
    plans = preprocessed / "Dataset902_Small" / "archspec_narrow.json"
    assert json.loads(plans.read_text(encoding="utf-8"))["plans_name"] == "archspec_narrow"
    other = replace(task, folder=tmp_path / "other")
    with pytest.raises(SpecError, match=r"archspec_narrow\.json exists"):
        bench(other)
    plans.write_text("{}", encoding="utf-8")
    (task.folder / "nnUNet_results").rename(tmp_path / "gone")
    with pytest.raises(SpecError, match="is not what this bench wrote"):
        bench(task, resume=True)
