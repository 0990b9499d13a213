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
from search.space.space import load_space
from search.study.ledger import ended
from search.study.run import run
from search.study.storage import open_run
from search.study.task import SearchTask
from search.trials.own import own_cases
from tests.postgres import PASSWORD, Postgres
from tests.ray_cluster import NODES, RayCluster

NUM = 3
Act = Callable[[subprocess.Popen[str], int], None]


def space_in(folder: Path, networks: int) -> Path:
    """Write a space with so many anchors into the folder, which is made; return its file.

    Anchors alone: what is drawn beside them depends on how often a search was gone on with.
    """
    widths = [(2 + number % 8, 2 + number // 8) for number in range(networks)]
    stage = {"width": {"int": [2, 9]}, "mixer": {"kind": "conv"}}
    anchors = [
        {f"encoder.stages.{index}.width": width for index, width in enumerate(both)}
        for both in widths
    ]
    settings = {"steps": 8, "rungs": 2, "eta": 2, "stopper": "none", "anchors": anchors}
    tree = {
        "name": "tiny",
        "patch_size": [8, 8],
        "encoder": {"stages": [stage, stage]},
        "decoder": {"kind": "sum"},
        "search": settings,
    }
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(dump(tree), encoding="utf-8")
    return folder / "space.yaml"


def searched(
    folder: Path, environment: dict[str, str], act: Act, networks: int = NUM, **given: Any
) -> int:
    """Search in the folder's `run`; `act` is called at each rung; return the exit code."""
    space = space_in(folder, networks)
    asked = {"engine": "local", "address": None, "storage": None, "grace": 300.0, **given}
    asked |= {"space": str(space), "out": str(folder / "run"), "trials": networks}
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


def undisturbed(folder: Path, imported: Callable[[Path], Any], networks: int) -> dict[str, Any]:
    """Return what comes of the networks in this process, where nothing dies."""
    here = Path(__file__).parents[1]
    space = load_space(space_in(folder, networks))
    cases = own_cases(imported(here / "own_cases.py").Squares())
    pool = imported(here / "inline_pool.py").InlinePool
    run(SearchTask(space, cases, folder / "run", networks), make_engine=pool)
    return results(folder / "run")


def test_a_node_and_workers_that_die_or_stall_change_no_result(
    tmp_path: Path, ray_cluster: RayCluster, imported: Callable[[Path], Any]
) -> None:
    """A node dies under the first trial, a worker under the next, and the third one's stops."""
    cut = tmp_path / "cut"

    def strike(process: subprocess.Popen[str], rung: int) -> None:
        if rung == 1:
            ray_cluster.kill(NODES[0])
            ray_cluster.add(NODES[0])
        if rung == 2:
            (worker,) = ray_cluster.workers()
            worker.kill()
        if rung == 3:
            (worker,) = ray_cluster.workers()
            worker.suspend()

    asked = {"engine": "ray", "address": ray_cluster.address, "grace": 20.0}
    assert searched(cut, ray_cluster.environment, strike, **asked) == 0
    assert results(cut / "run") == undisturbed(tmp_path / "whole", imported, NUM)
    trials = open_run(cut / "run")[0].trials
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    node, worker, stopped = (t.user_attrs["lost"] for t in trials if t.state == TrialState.FAIL)
    assert " is lost: " in node
    assert worker == "worker ended with code -9"
    assert stopped == "worker gave no sign of life for 20 s"
    assert [t.user_attrs.get("places_lost") for t in trials[NUM:]] == [1, None, None]
    assert [t.user_attrs["resumed_from"] for t in trials[NUM:]] == [0, 1, 2]


@pytest.mark.long
def test_a_cluster_is_refused_where_a_search_cannot_be(
    tmp_path: Path, ray_cluster: RayCluster
) -> None:
    """SQLite on a drive of the network; places that ask for more than there is."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"40 22 0:50 / {tmp_path} rw - nfs4 server:/export rw", encoding="utf-8")
    asked = {"engine": "ray", "address": ray_cluster.address, "cpus_per_job": 64}
    asked["patched"] = {
        "search.study.drives._MOUNTS": str(mounts),
        "search.trials.ray_engine.PATIENCE": 1.0,
    }

    def refused(folder: str, storage: str | None) -> str:
        with pytest.raises(AssertionError, match=r"blocks\.errors\.\w+: .*") as caught:
            searched(
                tmp_path / folder,
                ray_cluster.environment,
                lambda *_: None,
                storage=storage,
                **asked,
            )
        return str(caught.value)

    said = refused("new", None)
    assert "SpecError" in said and "is on nfs4, where SQLite's locks do not hold" in said
    assert not (tmp_path / "new" / "run").exists()
    said = refused("shared", "sqlite")
    assert "AbsentError: no place came within 1 s: each asks for 64 CPUs and 0 GPUs" in said
    assert "the cluster has 1 CPUs and 0 GPUs" in said


@pytest.mark.long
def test_thirty_trials_end_once_each(
    tmp_path: Path, ray_cluster: RayCluster, postgres: Postgres, imported: Callable[[Path], Any]
) -> None:
    """Nodes die three times and workers five times; PostgreSQL is stopped at once in between."""
    nodes, workers, server, networks = (9, 21, 33), (4, 13, 17, 27, 38), 30, 30

    def strike(process: subprocess.Popen[str], rung: int) -> None:
        if rung in nodes:
            ray_cluster.kill(NODES[0])
            ray_cluster.add(NODES[0])
        if rung in workers:
            (worker,) = ray_cluster.workers()
            worker.kill()
        if rung == server:
            postgres.stop()
            postgres.start()

    cut, environment = tmp_path / "cut", {**ray_cluster.environment, "PGPASSWORD": PASSWORD}
    asked = {"engine": "ray", "address": ray_cluster.address, "storage": postgres.url}
    assert searched(cut, environment, strike, networks, **asked) == 0
    assert results(cut / "run") == undisturbed(tmp_path / "whole", imported, networks)
    study = open_run(cut / "run")[0]
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    lost = [t.number for t in study.trials if t.state == TrialState.FAIL]
    assert len(lost) == len(nodes) + len(workers)
    heirs = [t.user_attrs["resumed_from"] for t in study.trials if "resumed_from" in t.user_attrs]
    assert sorted(heirs) == lost
    origins = [t.user_attrs.get("origin", t.number) for t in ended(study)]
    assert sorted(origins) == list(range(networks))


@pytest.mark.long
def test_deaths_under_a_search_change_no_result(
    tmp_path: Path, ray_cluster: RayCluster, postgres: Postgres
) -> None:
    """A node, a worker, PostgreSQL and the driver die once each, each under a trial."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
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
