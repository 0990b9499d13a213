"""Engines, with real worker processes: what dies, stalls or fails ends as a trial with a reason."""

import pkgutil
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import TrialState

import search.study.run
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.yaml_file import dump
from search.space.space import load_space
from search.study.loop import Event
from search.study.task import SearchTask
from search.trials.host import TrainingHost


def _workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_faults_of_real_workers_end_their_trials_with_a_reason(
    tmp_path: Path,
    dataset: PreprocessedDataset,
    space_tree: dict[str, Any],
    engine: str,
) -> None:
    """T13: a worker is killed, the next one stopped; the third finds data that cannot be opened."""

    stalled: list[psutil.Process] = []

    def stop() -> None:
        stalled.extend(_workers())
        stalled[0].send_signal(signal.SIGSTOP)

    def harm(event: Event) -> None:
        # a little later, when the trial is with a worker, which is still importing
        if (event.kind, event.number) == ("start", 0):
            threading.Timer(0.5, lambda: _workers()[0].kill()).start()
        if (event.kind, event.number) == ("start", 1):
            threading.Timer(0.5, stop).start()

    path = tmp_path / "space.yaml"
    path.write_text(dump(space_tree), encoding="utf-8")
    task = SearchTask(load_space(path), dataset, tmp_path / "run", 2, TrainingHost(grace=20.0))
    study = search.study.run.run(task, on_event=harm, make_engine=pkgutil.resolve_name(engine))
    killed, stopped, *heirs = study.trials
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 4
    assert killed.user_attrs["lost"].startswith("worker ended with code -9")
    assert stopped.user_attrs["lost"] == "worker gave no sign of life for 20 s"
    assert [t.user_attrs["resumed_from"] for t in heirs] == [0, 1]
    for heir in heirs:
        assert heir.user_attrs["reason"].startswith("KeyError")
        assert (tmp_path / "run" / "trials" / f"{heir.number:04d}" / "error.txt").is_file()
    gone, alive = psutil.wait_procs(stalled, timeout=10)
    assert gone and not alive
