"""The driver's loop with workers that do not train: what is asked, told and counted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from archspec.nnunet_dataset import PreprocessedDataset
from archspec.yaml_source import dump
from search.driver import Message
from search.loop import Event, SearchLoop, ended
from search.space import load_space
from search.study import run
from search.trial import CHECKPOINT, Rung, TrialTask

SPACE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 3, 4]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"choice": [{"kind": "conv"}, {"kind": "identity"}]}},
        ]
    },
    "decoder": {"kind": "sum"},
    "search": {"anchors": [{}, {"encoder.stages.0.width": 4}]},
}


class FakePool:
    """Answers every task at once; `fate` says how a trial ends."""

    num_idle = 1
    num_busy = 0

    def __init__(self, fate: dict[int, Message] | None = None) -> None:
        self.fate = fate or {}
        self.tasks: list[TrialTask] = []

    def submit(self, task: TrialTask) -> None:
        self.tasks.append(task)
        self.num_idle, self.num_busy = 0, 1

    def messages(self) -> Iterator[Message]:
        number = self.tasks[-1].number
        (self.tasks[-1].folder / CHECKPOINT).write_bytes(b"weights")
        self.num_idle, self.num_busy = 1, 0
        rung = Rung(10, {"mean": 0.5 + number / 100, "organ": 0.5}, 1.0, 2.0)
        fate = self.fate.get(number, Message(number, "done", rung))
        if fate.event == "done":
            yield Message(number, "rung", fate.rung)
        yield fate


@pytest.fixture
def dataset(tmp_path: Path) -> PreprocessedDataset:
    settings = {"patch_size": [16, 16, 16], "spacing": [1, 1, 1], "data_identifier": "data"}
    labels = {"background": 0, "organ": 1}
    return PreprocessedDataset(
        tmp_path,
        "Dataset901_X",
        "3d_fullres",
        {},
        {"channel_names": {"0": "MR"}, "labels": labels},
        settings,
    )


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def loop(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset, total: int
) -> SearchLoop:
    path = tmp_path / "space.yaml"
    path.write_text(dump(SPACE), encoding="utf-8")
    return SearchLoop(
        load_space(path), dataset, tmp_path / "run", study, total, 7, lambda event: None
    )


def drive(search: SearchLoop, pool: FakePool) -> None:
    search.recover()
    search.drive(pool)  # type: ignore[arg-type]


def test_anchors_first_then_new_networks_only(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset
) -> None:
    pool = FakePool()
    drive(loop(tmp_path, study, dataset, total=6), pool)
    widths = [task.tree["encoder"]["stages"][0]["width"] for task in pool.tasks]
    assert widths[:2] == [2, 4]
    assert len(pool.tasks) == 6, "all six networks of the space, each once"
    trees = [repr(task.tree["encoder"]) for task in pool.tasks]
    assert len(set(trees)) == 6
    rejected = [t for t in study.trials if "rejected" in t.user_attrs]
    assert rejected, "a random sampler repeats itself in a space of six"
    assert all(t.state == TrialState.PRUNED and "trial_hash" not in t.user_attrs for t in rejected)


def test_a_space_that_is_used_up_ends_the_search(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset
) -> None:
    pool = FakePool()
    drive(loop(tmp_path, study, dataset, total=50), pool)
    assert len(pool.tasks) == 6


def test_failures_count_keep_their_reason_and_have_no_value(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset
) -> None:
    nothing = Rung(10, {"mean": float("nan"), "organ": float("nan")}, 1.0, 2.0)
    fate = {0: Message(0, "failed", reason="loss is nan at step 3"), 1: Message(1, "done", nothing)}
    drive(loop(tmp_path, study, dataset, total=3), FakePool(fate))
    assert [t.state for t in study.trials[:2]] == [TrialState.FAIL, TrialState.FAIL]
    assert study.trials[0].user_attrs["reason"] == "loss is nan at step 3"
    assert "no Dice" in study.trials[1].user_attrs["reason"]
    assert len(ended(study)) == 3
    assert len(study.best_trials) == 1


def test_recovery_queues_each_lost_trial_once_and_inherits_its_checkpoint(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset
) -> None:
    class KilledError(Exception):
        pass

    class DyingPool(FakePool):
        def messages(self) -> Iterator[Message]:
            (self.tasks[-1].folder / CHECKPOINT).write_bytes(b"half trained")
            raise KilledError

    with pytest.raises(KilledError):
        drive(loop(tmp_path, study, dataset, total=2), DyingPool())
    assert [t.state for t in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    loop(tmp_path, study, dataset, total=2).recover()  # killed again before anything started

    class CheckingPool(FakePool):
        def submit(self, task: TrialTask) -> None:
            super().submit(task)
            found = task.folder / CHECKPOINT
            inherited[task.number] = found.read_bytes() if found.is_file() else b""

    inherited: dict[int, bytes] = {}
    pool = CheckingPool()
    drive(loop(tmp_path, study, dataset, total=2), pool)
    heirs = [t for t in study.trials if t.user_attrs.get("resumed_from") == 0]
    assert [t.state for t in heirs] == [TrialState.COMPLETE]
    assert inherited[heirs[0].number] == b"half trained"
    assert heirs[0].user_attrs["seed"] == 7000
    assert study.trials[0].state == TrialState.FAIL
    assert len(ended(study)) == 2


def test_an_anchor_killed_before_it_drew_its_parameters_is_not_lost(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset
) -> None:
    search = loop(tmp_path, study, dataset, total=2)
    search.recover()
    study.ask()  # the first anchor is RUNNING now, and has no parameters yet
    assert study.trials[0].params == {}
    pool = FakePool()
    drive(loop(tmp_path, study, dataset, total=2), pool)
    widths = [task.tree["encoder"]["stages"][0]["width"] for task in pool.tasks]
    assert sorted(widths) == [2, 4]


def test_values_are_dice_and_log10_flops(
    tmp_path: Path, study: optuna.Study, dataset: PreprocessedDataset
) -> None:
    drive(loop(tmp_path, study, dataset, total=1), FakePool())
    trial = study.trials[0]
    assert trial.values[0] == 0.5
    assert 10 ** trial.values[1] == pytest.approx(trial.user_attrs["flops"])


def test_faults_of_real_workers_end_their_trials_with_a_reason(
    tmp_path: Path, dataset: PreprocessedDataset
) -> None:
    """The first worker is killed; the one that replaces it finds data that cannot be opened."""

    def kill(event: Event) -> None:
        if (event.kind, event.number) == ("start", 0):
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()

    (tmp_path / "data").mkdir()
    for case in range(5):
        (tmp_path / "data" / f"case_{case}.pkl").touch()
    path = tmp_path / "space.yaml"
    path.write_text(dump(SPACE), encoding="utf-8")
    study = run(load_space(path), dataset, folder=tmp_path / "run", trials=2, on_event=kill)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.FAIL]
    assert study.trials[0].user_attrs["reason"].startswith("worker ended with code -")
    assert study.trials[1].user_attrs["reason"].startswith("KeyError")
    assert (tmp_path / "run" / "trials" / "0001" / "error.txt").is_file()
