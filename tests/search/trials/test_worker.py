"""What a worker says about its trial, and that it holds nothing of it afterwards."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import search.trials.train
import search.trials.worker
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.voxels import CaseError
from search.trials.beats import Shared
from search.trials.train import CHECKPOINT, TrialTask
from search.trials.worker import Message, WorkerSettings

FakeData = runpy.run_path(str(Path(__file__).parents[1] / "fake_training.py"))["FakeData"]


class Driver:
    """The driver's end of a worker's function, with data that the test gives."""

    def __init__(self, task: TrialTask, dataset: PreprocessedDataset, data: Any) -> None:
        self.task = replace(task, tree={**task.tree, "patch_size": list(dataset.patch_size)})
        self.settings = WorkerSettings(dataset, 0, 1, 1)
        self.data = data

    def train(self, answer: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Message]]:
        ours, theirs = Pipe()
        for _ in self.task.rung_steps:
            ours.send(answer)
        monkeypatch.setattr(search.trials.worker, "_data", lambda settings: self.data)
        said = search.trials.worker._train(self.task, self.settings, "cpu", theirs)
        assert search.trials.worker._free_memory("cpu")
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


def test_a_latency_is_told_with_rungs_where_it_is_asked_for(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked in (False, True):
        own = replace(task, measure_latency=asked, folder=task.folder / str(asked))
        own.folder.mkdir()
        _, told = Driver(own, dataset, FakeData()).train("stop", monkeypatch)
        assert [message.latency is not None for message in told] == [asked]


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

    build = search.trials.train.build_plan

    def watched(planned: Any) -> Any:
        net = build(planned)
        held.extend(weakref.ref(part) for part in (net, *net.parameters()))
        return net

    monkeypatch.setattr(search.trials.train, "build_plan", watched)
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


def test_a_bad_case_is_no_fault_of_the_trial(
    task: TrialTask, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(FakeData):
        def batches(self, *args: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            yield next(super().batches(*args, **options))
            raise CaseError("image holds NaN", where="case case_7")

    said, _ = Driver(task, dataset, Bad()).train("go on", monkeypatch)
    assert (said.event, said.reason) == ("data", "case case_7: image holds NaN")


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
        monkeypatch.setattr(search.trials.worker, name, lambda *args: None)
    monkeypatch.setattr(search.trials.worker, "_free_memory", lambda device: works)
    monkeypatch.setattr(search.trials.worker, "_data", lambda settings: FakeData(fail))
    driver = Driver(task, dataset, FakeData())
    ours, theirs = Pipe()
    for number in range(2):
        ours.send(replace(driver.task, number=number))
    ours.send(None)  # no task: an error ends the worker
    with pytest.raises(AttributeError) if works else contextlib.nullcontext():
        search.trials.worker.work(theirs, driver.settings, "cpu", Shared())
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


def test_what_a_worker_starts_ends_when_asked_to() -> None:
    """Processes that load batches are terminated and waited for; the worker hears nothing."""
    before = signal.getsignal(signal.SIGTERM)
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def sleep() -> None:
        ready.set()
        time.sleep(60)

    with search.trials.worker._deaf():
        signal.raise_signal(signal.SIGTERM)
        forked = context.Process(target=sleep)
        forked.start()
        code = "import time; print(flush=True); time.sleep(60)"
        started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert started.stdout is not None and started.stdout.readline() and ready.wait(60)
        forked.terminate()
        started.terminate()
        forked.join(60)
        started.communicate(timeout=60)
        assert forked.exitcode == started.returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
