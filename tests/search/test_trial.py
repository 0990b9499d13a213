"""Training one trial on data made up here: rungs, faults, checkpoints, what a worker says."""

import contextlib
import json
import math
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import search.trial
import search.worker
from archspec.loading import load
from archspec.nnunet_dataset import PreprocessedDataset
from archspec.planning import plan
from search.loading import Loading
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


def run(
    task: TrialTask,
    data: FakeData,
    report: Callable[[Rung], None] = lambda _: None,
    loading: Loading = Loading(),  # noqa: B008
) -> Rung:
    planned = plan(load(task.tree))
    device = torch.device("cpu")
    return train(task, planned, data, device, report, loading)  # type: ignore[arg-type]


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


def test_batches_loaded_ahead_give_the_same_trial(task: TrialTask) -> None:
    """Drop path draws too, and from the generator that the loader would draw from."""
    block = {"kind": "residual", "drop_path": 0.5}
    stages = [{"width": 2, "depth": 2, "mixer": {"kind": "conv"}, "block": block}]
    task = replace(task, tree={**task.tree, "encoder": {"stages": stages}})
    run(task, FakeData())
    whole = weights(task)
    ahead = replace(task, folder=task.folder / "ahead")
    ahead.folder.mkdir()

    def cut(rung: Rung) -> None:
        if rung.step == 2:
            raise StoppedError

    loading = Loading(2, timeout=60)
    with pytest.raises(StoppedError):
        run(ahead, FakeData(), cut, loading)
    run(ahead, FakeData(), loading=loading)
    assert all(torch.equal(whole[name], value) for name, value in weights(ahead).items())


def test_a_rung_says_how_long_its_steps_waited_for_batches(task: TrialTask) -> None:
    class Slow(FakeData):
        def batches(self, *args: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().batches(*args, **options):
                time.sleep(0.05)
                yield batch

    def stop(rung: Rung) -> None:
        if rung.step == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(task, Slow(), stop)
    told: list[Rung] = []
    last = run(task, Slow(), told.append)
    assert [rung.step for rung in told] == [2, 4, 8]
    for rung in told:
        assert rung.waited is not None and rung.busy is not None
        assert 0.05 * rung.step <= rung.waited <= rung.seconds, "since the start, the cut included"
        assert rung.busy == pytest.approx(1 - rung.waited / rung.seconds)
    assert last.time_text == f"{last.seconds:.0f} s, {100 * (last.busy or 0):.0f} % busy"
    lines = (task.folder / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["waited"] for line in lines] == [rung.waited for rung in told]


def test_a_rung_of_an_earlier_release_does_not_say_how_busy_it_was() -> None:
    rung = Rung(step=2, scores={"mean": 0.5}, loss=1.0, seconds=3.4)
    assert rung.busy is None and rung.time_text == "3 s"


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
        assert search.worker._free_memory("cpu")
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
    ("kind", "text", "reason"),
    [
        (torch.cuda.OutOfMemoryError, "CUDA out of memory. Tried to", "out of memory on cpu"),
        (RuntimeError, "[enforce] DefaultCPUAllocator: can't allocate memory", "out of memory on"),
        (RuntimeError, "Triton Error [CUDA]: out of memory", "out of memory on cpu"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out of memory on cpu"),
        (MemoryError, "", "out of memory on cpu"),
        (ValueError, "something else\nand more", "ValueError: something else"),
        (RuntimeError, "CUDA error: an illegal memory access", "RuntimeError: CUDA error: an ill"),
    ],
)
def test_an_error_fails_the_trial_and_frees_what_it_held(
    task: TrialTask,
    dataset: PreprocessedDataset,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    text: str,
    reason: str,
) -> None:
    """T5: the network and its gradients are gone when the next trial starts.

    Nothing but the trial holds the error, whose traceback holds the frames that hold the network.
    """
    held: list[weakref.ref[Any]] = []

    def fail(loss: Tensor) -> Tensor:
        held.append(weakref.ref(loss))
        raise kind(text)

    build = search.trial.build_plan

    def watched(planned: Any) -> Any:
        net = build(planned)
        held.extend(weakref.ref(part) for part in (net, *net.parameters()))
        return net

    monkeypatch.setattr(search.trial, "build_plan", watched)
    said, _ = Driver(task, dataset, FakeData(fail)).train("go on", monkeypatch)
    assert said.event == "failed"
    assert said.reason.startswith(reason) and "\n" not in said.reason
    assert len(held) > 5
    assert not [ref for ref in held if ref() is not None]


def test_a_fault_of_the_loader_fails_its_trial(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(FakeData):
        def batches(self, *args: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            yield next(super().batches(*args, **options))
            raise KeyError("case_7")

    said, _ = Driver(task, dataset, Faulty()).train("go on", monkeypatch)
    assert said.event == "failed"
    assert said.reason == "LoadingError: batch of step 1: KeyError: 'case_7'"
    assert 'raise KeyError("case_7")' in (task.folder / "error.txt").read_text(encoding="utf-8")


def test_a_loading_process_that_dies_loses_its_trial(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost, not failed: it is queued again, as when its worker dies."""

    class Dying(FakeData):
        def batches(self, *args: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            yield next(super().batches(*args, **options))
            os.kill(os.getpid(), signal.SIGKILL)

    driver = Driver(task, dataset, Dying())
    driver.settings = replace(driver.settings, loaders=1)
    said, _ = driver.train("go on", monkeypatch)
    assert said.event == "lost"
    assert said.reason.startswith("DataLoader worker (pid") and "\n" not in said.reason


@pytest.mark.parametrize("works", [True, False])
def test_a_worker_whose_device_is_spoiled_says_why_and_ends(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """As after an illegal memory access, which no later trial of the process would survive."""

    def fail(loss: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for name in ("_beat", "_die_with_parent"):
        monkeypatch.setattr(search.worker, name, lambda *args: None)
    monkeypatch.setattr(search.worker, "_free_memory", lambda device: works)
    monkeypatch.setattr(search.worker, "_data", lambda settings: FakeData(fail))
    driver = Driver(task, dataset, FakeData())
    ours, theirs = Pipe()
    for number in range(2):
        ours.send(replace(driver.task, number=number))
    ours.send(None)  # no task: an error ends the worker
    with pytest.raises(AttributeError) if works else contextlib.nullcontext():
        search.worker.work(theirs, driver.settings, "cpu", SimpleNamespace(value=0))
    told = []
    while ours.poll():
        told.append(ours.recv())
    assert [(m.number, m.event, m.last_words) for m in told] == (
        [(0, "failed", False), (1, "failed", False)] if works else [(0, "failed", True)]
    )
    assert told[0].reason == "RuntimeError: CUDA error: an illegal memory access was encountered"


def test_a_full_disk_is_told_to_the_driver(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task.folder / f"{CHECKPOINT}.partial").symlink_to("/dev/full")
    said, _ = Driver(task, dataset, FakeData()).train("go on", monkeypatch)
    assert said.event == "storage"
    assert "No space left" in said.reason
