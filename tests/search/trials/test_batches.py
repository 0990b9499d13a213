"""Batches that other processes load: the same ones, in order; their faults reach the trial."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from archspec.nnunet.voxels import CaseError
from archspec.training.step import Batch
from blocks.base import SpecError
from search.trials.batches import Loading, LoadingError, load_batches, num_loaders
from search.trials.faults import is_loader_lost

HERE = Loading(0)
AHEAD = Loading(2, timeout=60)


def drawn() -> Iterator[Batch]:
    """Yield what each of the three generators draws."""
    while True:
        images = torch.tensor([random.random(), np.random.random()])
        yield images, [torch.randn(2), torch.randn(1)]


def numbers(batch: Batch) -> list[float]:
    images, targets = batch
    assert isinstance(targets, list)
    return torch.cat([images, *targets]).tolist()


def loaded(loading: Loading, steps: range = range(6), seed: int = 3) -> list[list[float]]:
    return [numbers(batch) for batch in load_batches(drawn(), steps, seed=seed, loading=loading)]


def test_other_processes_load_the_same_batches_in_order() -> None:
    here = loaded(HERE)
    assert loaded(AHEAD) == here
    assert len({tuple(batch) for batch in here}) == 6
    assert loaded(AHEAD, range(4, 6)) == here[4:], "a resumed trial goes on with the same ones"


def test_no_trial_has_the_batches_of_another_one_shifted() -> None:
    assert not {tuple(b) for b in loaded(HERE)} & {tuple(b) for b in loaded(HERE, seed=4)}


@pytest.mark.parametrize("loading", [HERE, AHEAD], ids=["here", "ahead"])
def test_the_caller_s_generators_stay_as_they_are(loading: Loading) -> None:
    def state() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)  # type: ignore[operator]
    expected = state()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)  # type: ignore[operator]
    loaded(loading, range(3))
    assert state() == expected


@pytest.mark.parametrize("loading", [HERE, AHEAD], ids=["here", "ahead"])
def test_a_fault_of_the_loader_is_told_at_its_step(loading: Loading) -> None:
    def faulty() -> Iterator[Batch]:
        yield from (next(drawn()) for _ in range(1))
        raise KeyError("case_7")

    batches = load_batches(faulty(), range(5), seed=0, loading=loading)
    next(batches)
    if loading is AHEAD:
        next(batches)  # the other process's first one
    step = loading.processes or 1
    with pytest.raises(LoadingError, match=f"batch of step {step}: KeyError: 'case_7'") as told:
        next(batches)
    assert not is_loader_lost(told.value)
    assert "in faulty" in "".join(told.value.__notes__), "its traceback is kept"


def dying() -> Iterator[Batch]:
    yield next(drawn())
    os.kill(os.getpid(), signal.SIGKILL)


def stalling() -> Iterator[Batch]:
    yield next(drawn())
    time.sleep(600)


def lost(source: Iterator[Batch]) -> bool:
    try:
        for _ in load_batches(source, range(9), seed=0, loading=replace(AHEAD, timeout=5)):
            pass
    except RuntimeError as error:
        return is_loader_lost(error)
    return False


@pytest.mark.parametrize("source", [dying, stalling])
def test_a_loading_process_that_dies_or_stalls_does_not_hang_the_trial(
    source: Callable[[], Iterator[Batch]],
) -> None:
    before = psutil.Process().children()
    assert lost(source())
    left = [child for child in psutil.Process().children() if child not in before]
    assert not psutil.wait_procs(left, timeout=30)[1]


def test_no_process_outlives_its_batches() -> None:
    before = psutil.Process().children()
    with closing(load_batches(drawn(), range(100), seed=0, loading=AHEAD)) as batches:
        next(batches)
        ours = [child for child in psutil.Process().children() if child not in before]
        assert len(ours) == 2
    assert not psutil.wait_procs(ours, timeout=30)[1]


def test_processes_load_for_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert num_loaders("cpu", 1) == 0
    assert [num_loaders("cuda:0", workers) for workers in (1, 2, 4, 32)] == [12, 8, 4, 1]


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("0", 0)])
def test_nnunet_s_variable_says_how_many(
    given: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", given)
    assert num_loaders("cuda:1", 4) == expected
    assert num_loaders("cpu", 1) == 0


def test_a_variable_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    with pytest.raises(SpecError, match="nnUNet_n_proc_DA: must be a number"):
        num_loaders("cuda", 1)


@pytest.mark.parametrize("loading", [HERE, AHEAD], ids=["here", "ahead"])
def test_a_case_that_cannot_be_used_is_told_as_it_is(loading: Loading) -> None:
    def faulty() -> Iterator[Batch]:
        yield next(drawn())
        raise CaseError("image holds NaN", where="case case_7")

    batches = load_batches(faulty(), range(9), seed=0, loading=loading)
    with pytest.raises(CaseError, match=r"^case case_7: image holds NaN$"):
        list(batches)
