"""Training one trial on data made up here: rungs, faults, checkpoints, what a worker says."""

import gc
import json
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import search.trial
import search.worker
from archspec.loading import load
from archspec.nnunet_dataset import PreprocessedDataset
from archspec.planning import plan
from search.trial import (
    CHECKPOINT,
    METRICS,
    CheckpointError,
    DivergedError,
    Rung,
    StoppedError,
    TrialTask,
    train,
)
from search.worker import Message, WorkerSettings

PATCH = (8, 8, 8)


class FakeData:
    """Random patches; a loss and scores that a test may spoil."""

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        self.spoil = spoil
        self.num_scores = 0

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.randn(1, 1, *PATCH), torch.randint(2, (1, *PATCH))

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> Any:
        return lambda logits, target: self.spoil(nn.functional.cross_entropy(logits, target))

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        net.eval()
        self.num_scores += 1
        return {"mean": self.num_scores / 10, "organ": self.num_scores / 10}


@pytest.fixture
def task(tmp_path: Path) -> TrialTask:
    tree = {
        "name": "tiny",
        "patch_size": list(PATCH),
        "encoder": {"stages": [{"width": 2, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
    }
    return TrialTask(3, tree, tmp_path, 5, (2, 4, 8))


def run(task: TrialTask, data: FakeData, report: Callable[[Rung], None] = lambda _: None) -> Rung:
    planned = plan(load(task.tree))
    return train(task, planned, data, torch.device("cpu"), report)  # type: ignore[arg-type]


def weights(task: TrialTask) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(task.folder / CHECKPOINT, weights_only=True)["net"]
    return state


def test_rungs_are_scored_where_the_task_says(task: TrialTask) -> None:
    told: list[Rung] = []
    last = run(task, FakeData(), told.append)
    assert [rung.step for rung in told] == [2, 4, 8]
    assert last == told[-1]
    lines = (task.folder / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 8]


def test_validations_in_between_smooth_the_rung_and_change_no_weight(task: TrialTask) -> None:
    run(task, FakeData())
    plain = weights(task)
    other = replace(task, folder=task.folder / "other", validate_every=1)
    other.folder.mkdir()
    told: list[Rung] = []
    run(other, FakeData(), told.append)
    # scores count up by 0.1: two, two and four validations, of which the last three count
    assert [rung.dice for rung in told] == pytest.approx([0.15, 0.35, 0.7])
    assert [rung.scores["mean"] for rung in told] == pytest.approx([0.2, 0.4, 0.8])
    assert all(torch.equal(plain[name], value) for name, value in weights(other).items())


def test_a_trial_cut_off_at_a_rung_ends_as_if_it_never_was(task: TrialTask) -> None:
    run(task, FakeData())
    whole = weights(task)
    cut = replace(task, folder=task.folder / "cut")
    cut.folder.mkdir()

    def stop(rung: Rung) -> None:
        if rung.step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(cut, FakeData(), stop)
    told: list[Rung] = []
    run(cut, FakeData(), told.append)
    assert [rung.step for rung in told] == [4, 8], "the checkpoint's rung is told again"
    assert all(torch.equal(whole[name], value) for name, value in weights(cut).items())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_trial(task: TrialTask, value: float) -> None:
    """T6."""
    with pytest.raises(DivergedError, match="at step 0"):
        run(task, FakeData(lambda loss: loss * value))
    assert not (task.folder / CHECKPOINT).exists()


def test_a_full_disk_leaves_the_old_checkpoint(task: TrialTask) -> None:
    """T19: /dev/full takes no byte, as a full disk."""

    def fill(rung: Rung) -> None:
        if rung.step == 2:
            (task.folder / f"{CHECKPOINT}.partial").symlink_to("/dev/full")

    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be written: No space left"):
        run(task, FakeData(), fill)
    assert torch.load(task.folder / CHECKPOINT, weights_only=True)["step"] == 2
    assert not (task.folder / f"{CHECKPOINT}.partial").is_symlink()
    assert run(task, FakeData()).step == 8


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_checkpoint_is_not_taken_for_a_good_one(task: TrialTask, size: int) -> None:
    """T19: it is kept aside, and the trial begins anew."""
    run(task, FakeData())
    whole = weights(task)
    bytes_ = (task.folder / CHECKPOINT).read_bytes()
    (task.folder / CHECKPOINT).write_bytes(bytes_[:size])
    told: list[Rung] = []
    run(task, FakeData(), told.append)
    assert [rung.step for rung in told] == [2, 4, 8]
    assert all(torch.equal(whole[name], value) for name, value in weights(task).items())
    assert (task.folder / f"{CHECKPOINT}.unreadable").is_file()


class Driver:
    """The driver's end of a worker's function, with data that the test gives."""

    def __init__(self, task: TrialTask, dataset: PreprocessedDataset, data: FakeData) -> None:
        self.task = replace(task, tree={**task.tree, "patch_size": list(dataset.patch_size)})
        self.settings = WorkerSettings(dataset, 0, 1, 1)
        self.data = data

    def train(self, answer: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Message]]:
        ours, theirs = Pipe()
        for _ in self.task.rung_steps:
            ours.send(answer)
        monkeypatch.setattr(search.worker, "_data", lambda settings: self.data)
        said = search.worker._train(self.task, self.settings, "cpu", theirs)
        search.worker._free_memory()
        told = []
        while ours.poll():
            told.append(ours.recv())
        return said, told


def test_a_stopped_trial_says_nothing_more(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, told = Driver(task, dataset, FakeData()).train("stop", monkeypatch)
    assert said is None
    assert [message.rung.step for message in told] == [2]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory on cpu"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of mem"),
        (MemoryError(), "out of memory on cpu"),
        (ValueError("something else"), "ValueError: something else"),
    ],
)
def test_an_error_fails_the_trial_and_frees_what_it_held(
    task: TrialTask,
    dataset: PreprocessedDataset,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    """T5: the network and its gradients are gone when the next trial starts."""
    held: list[weakref.ref[Any]] = []

    def fail(loss: Tensor) -> Tensor:
        held.append(weakref.ref(loss))
        raise error.with_traceback(None)

    build = search.trial.build_plan

    def watched(planned: Any) -> Any:
        net = build(planned)
        held.append(weakref.ref(net))
        return net

    monkeypatch.setattr(search.trial, "build_plan", watched)
    driver = Driver(task, dataset, FakeData(fail))
    said, _ = driver.train("go on", monkeypatch)
    assert said.event == "failed"
    assert said.reason.startswith(reason)
    error.__traceback__ = None  # the test holds the error itself
    gc.collect()
    assert len(held) == 2
    assert [ref() for ref in held] == [None, None]


def test_a_full_disk_is_told_to_the_driver(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task.folder / f"{CHECKPOINT}.partial").symlink_to("/dev/full")
    said, _ = Driver(task, dataset, FakeData()).train("go on", monkeypatch)
    assert said.event == "storage"
    assert "No space left" in said.reason
