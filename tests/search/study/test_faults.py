"""Trials that fail in a real worker, one after the other: reasons told, memory free, no repeats."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from archspec.spec.yaml_file import dump
from search.study.run import open_run


def test_faults_end_their_trials_and_the_search_goes_on(
    tmp_path: Path, space_tree: dict[str, Any]
) -> None:
    """T5, T6: out of memory, a loss of NaN, inf and -inf, no Dice; then a trial that ends well."""
    space, out, log = tmp_path / "space.yaml", tmp_path / "run", tmp_path / "log"
    space.write_text(dump({**space_tree, "search": {"steps": 2, "rungs": 1}}), encoding="utf-8")
    script = Path(__file__).with_name("faulty_search.py")
    line = [sys.executable, str(script), str(space), str(out), "6"]
    environment = {**os.environ, "TRIAL_LOG": str(log)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    study, _ = open_run(out)
    trained = [t for t in study.trials if "started" in t.user_attrs]
    assert [t.user_attrs.get("reason") for t in trained] == [
        "out of memory on cpu",
        "loss is nan at step 0",
        "loss is inf at step 0",
        "loss is -inf at step 0",
        "no Dice: no foreground in the validation cases",
        None,
    ]
    assert [t.state for t in trained] == [TrialState.FAIL] * 5 + [TrialState.COMPLETE]
    assert len({t.user_attrs["trial_hash"] for t in trained}) == 6, "nothing is tried twice"

    entries = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    assert [number for number, _, _ in entries] == [str(t.number) for t in trained]
    assert len({process for _, process, _ in entries}) == 1, "one worker outlives all faults"
    assert {alive for _, _, alive in entries} == {"0"}, "no network of an earlier trial is left"
