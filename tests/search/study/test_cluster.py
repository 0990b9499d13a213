"""Searches on a Ray cluster of this machine, under whose trials nodes, workers and drivers die."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from archspec.spec.yaml_file import dump
from search.study.ledger import ended
from search.study.storage import open_run
from tests.postgres import PASSWORD, Postgres
from tests.ray_cluster import NODES, RayCluster

WIDTHS = (2, 3, 5)
SPACE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [8, 8],
    "encoder": {
        "stages": [
            {"width": {"int": [2, 9]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"kind": "conv"}},
        ]
    },
    "decoder": {"kind": "sum"},
    "search": {
        "steps": 8,
        "rungs": 2,
        "eta": 2,
        "stopper": "none",
        "anchors": [{"encoder.stages.0.width": width} for width in WIDTHS],
    },
}
"""Anchors alone: what is drawn beside them depends on how often a search was gone on with."""

Act = Callable[[subprocess.Popen[str], int], None]


def searched(folder: Path, environment: dict[str, str], act: Act, **given: Any) -> int:
    """Search in the folder's `run`; `act` is called at each rung; return the exit code."""
    space = folder / "space.yaml"
    space.write_text(dump(SPACE), encoding="utf-8")
    asked = {"engine": "local", "address": None, "storage": None, **given}
    asked |= {"space": str(space), "out": str(folder / "run"), "trials": len(WIDTHS)}
    script = Path(__file__).with_name("cluster_search.py")
    log = folder / "errors"
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(asked)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None and process.stdout is not None
    rungs = 0
    for line in process.stdout:
        if json.loads(line)[0] == "rung":
            rungs += 1
            act(process, rungs)
            if process.poll() is None:
                process.stdin.write("\n")
                process.stdin.flush()
    process.stdin.close()
    process.stdout.close()
    code = process.wait()
    assert code <= 0, log.read_text(encoding="utf-8")[-3000:]
    return code


def results(run: Path) -> dict[str, Any]:
    """Return what came of every network: its rungs and values, without times."""
    return {
        trial.user_attrs["trial_hash"]: (
            trial.values,
            [{**rung, "seconds": 0, "waited": 0} for rung in trial.user_attrs["rungs"]],
        )
        for trial in ended(open_run(run)[0])
    }


@pytest.mark.long
def test_deaths_under_a_search_change_no_result(
    tmp_path: Path, ray_cluster: RayCluster, postgres: Postgres
) -> None:
    """A node, a worker, PostgreSQL and the driver die once each, each under a trial."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    environment = {**ray_cluster.environment, "PGPASSWORD": PASSWORD}
    assert searched(whole, environment, lambda process, rung: None) == 0

    def strike(process: subprocess.Popen[str], rung: int) -> None:
        if rung == 1:
            ray_cluster.kill(NODES[0])
            ray_cluster.add(NODES[0])
        if rung == 3:
            (worker,) = ray_cluster.workers()
            worker.kill()
        if rung == 4:
            postgres.stop()
            postgres.start()
        if rung == 5:
            process.kill()

    asked = {"engine": "ray", "address": ray_cluster.address}
    assert searched(cut, environment, strike, storage=postgres.url, **asked) == -9
    before = results(cut / "run")
    assert searched(cut, environment, lambda process, rung: None, **asked) == 0
    assert results(cut / "run").items() >= before.items()
    assert results(cut / "run") == results(whole / "run")
    trials = open_run(cut / "run")[0].trials
    lost = [t for t in trials if t.state == TrialState.FAIL]
    assert [t.user_attrs.get("places_lost") for t in trials if t.user_attrs.get("places_lost")]
    assert len(lost) == 3, "a node, a worker and a driver"
    heirs = sorted(t.user_attrs["resumed_from"] for t in trials if "resumed_from" in t.user_attrs)
    assert heirs == [t.number for t in lost]
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert {t.user_attrs["trained_on"] for t in ended(open_run(cut / "run")[0])}


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the password in libpq's own way."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
