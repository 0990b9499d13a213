"""Two hundred kills of drivers and workers: nothing lost, nothing twice, every bit the same."""

import json
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from archspec.spec.yaml_file import dump
from search.study.ledger import ended
from search.study.storage import open_run
from search.trials.checkpoint import CHECKPOINT, read_checkpoint

SHOTS, STEPS, RUNGS, EVERY = 200, 16, 4, 2
WIDTHS = (2, 4, 6, 9)
SPACE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [24, 32, 32],
    "encoder": {
        "defaults": {"mixer": {"kind": "conv"}, "downsample": {"stride": 4, "kernel_size": 5}},
        "stages": [{"width": {"int": [2, 9]}}, {"width": 4, "downsample": {"stride": 2}}],
    },
    "decoder": {"kind": "sum"},
    "search": {
        "steps": STEPS,
        "batch_size": 2,
        "rungs": RUNGS,
        "eta": 1,
        "stopper": "none",
        "checkpoint_every": EVERY,
        "anchors": [{"encoder.stages.0.width": width} for width in WIDTHS],
    },
}
"""Anchors alone: what is drawn beside them depends on how often a search was gone on with."""


def searched(folder: Path, shots: int, environment: dict[str, str]) -> dict[str, int]:
    """Search in the folder, be shot at so often, and return who was hit how often."""
    folder.mkdir()
    space, script = folder / "space.yaml", Path(__file__).with_name("shot_search.py")
    space.write_text(dump(SPACE), encoding="utf-8")
    line = [sys.executable, str(script), str(space), str(folder), str(len(WIDTHS)), str(shots)]
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    shot: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return shot


def results(folder: Path) -> dict[str, Any]:
    """Return what came of every network: its rungs and result, and what was trained."""
    found = {}
    for trial in ended(open_run(folder / "run")[0]):
        rungs = [{**rung, "seconds": 0, "waited": 0} for rung in trial.user_attrs["rungs"]]
        file = folder / "run" / "trials" / f"{trial.number:04d}" / CHECKPOINT
        state = read_checkpoint(file)
        assert state is not None and state["step"] == STEPS
        trained = {name: bits(state[name]) for name in ("net", "optimizer")}
        found[trial.user_attrs["trial_hash"]] = [trial.values, rungs, trained]
    return found


def bits(state: Any) -> Any:
    """Return plain data that is equal where every bit of the state is."""
    if isinstance(state, dict):
        return {str(key): bits(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [bits(value) for value in state]
    return state.numpy().tobytes() if hasattr(state, "numpy") else state


def check_trials(folder: Path) -> None:
    """Nothing lost, nothing twice: every network ended once, every lost trial has one heir."""
    trials = open_run(folder / "run")[0].trials
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    hashes = [trial.user_attrs["trial_hash"] for trial in complete]
    assert len(hashes) == len(set(hashes)) == len(WIDTHS)
    lost = [trial.number for trial in trials if trial.state == TrialState.FAIL]
    heirs = [trial.user_attrs.get("resumed_from") for trial in trials]
    assert sorted(heir for heir in heirs if heir is not None) == lost
    assert len(complete) + len(lost) == len(trials), "none runs, waits or was given up"


def check_steps(folder: Path) -> None:
    """Every step was taken, and none again that a checkpoint held."""
    taken: dict[str, list[int]] = defaultdict(list)
    for line in (folder / "steps.log").read_text(encoding="utf-8").splitlines():
        segment, step = line.split()
        taken[segment].append(int(step))
    assert len(taken) == RUNGS * len(WIDTHS)
    for steps in taken.values():
        for before, step in pairwise(steps):
            back = before + 1 - step
            assert back == 0 or (step % EVERY == 0 and 0 < back <= EVERY), steps
        assert sorted(set(steps)) == list(range(steps[0], steps[0] + STEPS // RUNGS))


@pytest.mark.long
def test_two_hundred_kills_change_nothing(
    dataset_environment: dict[str, str], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    searched(whole, 0, dataset_environment)
    shot = searched(cut, SHOTS, dataset_environment)
    assert sum(shot.values()) == SHOTS and min(shot.values()) >= 20, shot
    wanted = results(whole / "0")
    folders = sorted(path for path in cut.iterdir() if path.is_dir())
    assert len(folders) >= 3, "starts and ends of searches were shot at too"
    for folder in folders:
        check_trials(folder)
        check_steps(folder)
        assert results(folder) == wanted
