"""A search that is killed goes on where it was: no trial lost, none trained twice."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from archspec.nnunet.dataset import find_dataset
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.space import load_space
from search.study.loop import Event
from search.study.run import run
from search.study.storage import open_run
from search.study.task import SearchTask
from search.trials.host import TrainingHost

ROOT = Path(__file__).parents[3]
STEPS, RUNGS, TRIALS = 24, 3, 4

SPACE = {
    "name": "tiny",
    "patch_size": [24, 32, 32],
    "encoder": {
        "defaults": {"mixer": {"kind": "conv"}, "downsample": {"stride": 4, "kernel_size": 5}},
        "stages": [
            {"width": {"int": [2, 9]}},
            {"width": {"choice": [4, 6]}, "downsample": {"stride": 2}},
        ],
    },
    "decoder": {"choice": [{"kind": "sum"}, {"kind": "mlp", "width": 4}]},
    "search": {
        "steps": STEPS,
        "batch_size": 2,
        "rungs": RUNGS,
        "eta": 1,
        "anchors": [{"encoder.stages.0.width": 2}, {"encoder.stages.0.width": 5}],
    },
}


def _recorded(study: optuna.Study) -> list[int]:
    """Return the RUNNING trials that have a recorded rung but not all."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [t.number for t in running if 0 < len(t.user_attrs.get("rungs", [])) < RUNGS]


def _kill_with_recorded_rung(process: subprocess.Popen[bytes], out: Path) -> list[int]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the search ended before it could be killed"
        if (out / "study.db").is_file() and (out / "run.json").is_file():
            try:
                study, _ = open_run(out)
            except SpecError:  # the study is being created
                time.sleep(0.1)
                continue
            recorded = _recorded(study)
            if recorded and any(t.state == TrialState.COMPLETE for t in study.get_trials()):
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGKILL)
                process.wait()
                _, alive = psutil.wait_procs(children, timeout=30)
                assert not alive, "workers must end with their driver"
                return recorded
        time.sleep(0.05)
    pytest.fail("no trial recorded a rung in time")


def test_killed_search_resumes(
    dataset_environment: dict[str, str], tmp_path: Path, engine: str
) -> None:
    space, out, log = tmp_path / "space.yaml", tmp_path / "run", tmp_path / "steps.log"
    space.write_text(dump(SPACE), encoding="utf-8")
    environment = {**os.environ, "STEP_LOG": str(log), "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("killed_search.py")
    line = [sys.executable, str(script), str(space), str(out), str(TRIALS), engine]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    _kill_with_recorded_rung(process, out)

    before, _ = open_run(out)
    finished = {t.number: t.values for t in before.get_trials() if t.state == TrialState.COMPLETE}
    running = [t for t in before.get_trials() if t.state == TrialState.RUNNING]
    rungs_done = {t.number: len(t.user_attrs.get("rungs", [])) for t in running}
    at_kill = Counter(log.read_text().split())
    assert any(rungs_done.values())

    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    after, _ = open_run(out)
    trials = after.get_trials()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len(complete) == TRIALS
    assert not [t for t in trials if t.state == TrialState.RUNNING]
    assert {n: trials[n].values for n in finished} == finished, "finished trials stay as they were"
    started = [t for t in running if "started" in t.user_attrs]  # not just drawn from the sampler
    for lost in started:
        heirs = [t for t in trials if t.user_attrs.get("resumed_from") == lost.number]
        assert [t.state for t in heirs] == [TrialState.COMPLETE]
        assert heirs[0].params == lost.params
    hashes = [t.user_attrs["trial_hash"] for t in complete]
    assert len(set(hashes)) == TRIALS, "no network twice"

    # Every segment ran exactly once, but for the one that the kill cut off: it ran again from its
    # start, unless the kill fell between its last step and the record of its rung.
    counts = Counter(log.read_text().split())
    segment = STEPS // RUNGS
    cut = {t.user_attrs["seed"]: rungs_done[t.number] + 1 for t in started}
    for trial in complete:
        seed = trial.user_attrs["seed"]
        for rung in range(1, RUNGS + 1):
            key = str(seed + 7919 * rung)
            allowed = {segment}
            if cut.get(seed) == rung:
                whole = at_kill[key] == segment
                allowed = {segment, 2 * segment} if whole else {segment + at_kill[key]}
            assert counts.pop(key) in allowed
    assert not counts, "steps of no finished trial"

    events: list[Event] = []
    host = TrainingHost(seed=5)
    task = SearchTask(load_space(space), find_dataset("902"), out, TRIALS, host)
    run(task, resume=True, on_event=events.append)
    assert not [e for e in events if e.kind == "start"], "a finished search trains nothing more"
    assert len(open_run(out)[0].get_trials()) == len(trials)


@pytest.mark.parametrize(
    ("number", "code", "jobs"),
    [
        (signal.SIGTERM, 143, 1),
        pytest.param(signal.SIGTERM, 143, 2, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 130, 2, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, 2, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_in_one_line(
    dataset_environment: dict[str, str],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    jobs: int,
) -> None:
    """It reaches the driver and its workers alike, as from a terminal or a batch system."""
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    rungs = {"rungs": 2, "eta": 5_000, "stopper": "none"}  # scored after 2 steps, and at the end
    long = {**SPACE, "search": {"steps": 10_000, "batch_size": 2, **rungs}}
    space.write_text(dump(long), encoding="utf-8")
    line = [sys.executable, "-m", "archspec", "search", str(space), "--data", "902"]
    line += ["--trials", str(jobs), "--jobs", str(jobs), "--out", str(out)]
    process = subprocess.Popen(
        line,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a script may ignore them, and children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert process.stdout is not None
    training = {f"trial {trial}: step 2: " for trial in range(jobs)}
    for shown in process.stdout:
        training = {start for start in training if not shown.startswith(start)}
        if not training:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == f"stopped; go on with {shlex.join(['archspec', *line[3:], '--resume'])}\n"
    assert len(children) >= jobs
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    study, _ = open_run(out)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.RUNNING] * jobs, "none was given up"
