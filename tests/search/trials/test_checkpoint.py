"""Checkpoints between rungs: wherever a training is cut off, it ends as if it never was."""

import os
import random
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import archspec.network.checkpoint
import search.trials.train
from archspec.network.plan import plan
from archspec.spec.load import load
from search.trials.batches import Loading
from search.trials.checkpoint import is_whole, read_checkpoint
from search.trials.train import (
    CHECKPOINT,
    METRICS,
    Listener,
    Rung,
    TrialTask,
    score_trained,
    train,
)

FakeData = runpy.run_path(str(Path(__file__).parents[1] / "fake_training.py"))["FakeData"]
STEPS = 8


class CutOffError(Exception):
    """As a kill: nothing of the training catches it."""


class DrawingData(FakeData):  # type: ignore[misc, valid-type]
    """Steps and scores draw from every generator, and scores depend on the weights.

    The loss of step `cut` cuts the training off; `kill` does so for good.
    """

    def __init__(self, cut: int | None = None, first: int = 0, *, kill: bool = False) -> None:
        super().__init__()
        self.step, self.cut, self.kill = first, cut, kill

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> Any:
        def loss_of(logits: Tensor, target: Tensor) -> Tensor:
            if self.step == self.cut:
                if self.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise CutOffError
            self.step += 1
            drawn = random.random() + np.random.rand() + float(torch.rand(()))
            return (1 + drawn) * nn.functional.cross_entropy(logits, target)

        return loss_of

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        net.eval()
        drawn = random.random() + np.random.randn()  # randn keeps a second number for later
        total = sum(float(value.detach().abs().sum()) for value in net.parameters())
        return {"mean": total + drawn, "organ": total}


@pytest.fixture
def dropping(task: TrialTask) -> TrialTask:
    """Return a task of rungs at 2, 4 and 8, whose network draws too."""
    block = {"kind": "residual", "drop_path": 0.5}
    stages = [{"width": 2, "depth": 2, "mixer": {"kind": "conv"}, "block": block}]
    tree = {**task.tree, "encoder": {"stages": stages}}
    return replace(task, tree=tree, validate_every=3)


def run(task: TrialTask, data: Any, loading: Loading = Loading()) -> list[Rung]:  # noqa: B008
    """Train, and return the rungs that were told, without what clocks say."""
    told: list[Rung] = []
    task.folder.mkdir(exist_ok=True)
    train(task, plan(load(task.tree)), data, torch.device("cpu"), Listener(told.append), loading)
    return [replace(rung, seconds=0, waited=0) for rung in told]


def ended(task: TrialTask) -> dict[str, Any]:
    """Return all that was trained: weights, optimizer."""
    state = read_checkpoint(task.folder / CHECKPOINT)
    assert state is not None
    names = ("net", "optimizer", "averaged", "step")
    return {name: state[name] for name in names if name in state}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def by_time(monkeypatch: pytest.MonkeyPatch, due: Callable[[], bool]) -> None:
    """Let two minutes have passed since the last checkpoint whenever `due` says so."""
    monkeypatch.setattr(search.trials.train._Clock, "is_due", lambda self, step, every: due())


def cut_and_go_on(task: TrialTask, cut: int, loading: Loading = Loading()) -> list[Rung]:  # noqa: B008
    """Cut the task off in a step, go on, and return the rungs told since."""
    task.folder.mkdir(exist_ok=True)
    with pytest.raises(CutOffError):
        run(task, DrawingData(cut), loading)
    return run(task, DrawingData(), loading)


@pytest.mark.parametrize(("every", "average"), [(1, False), (3, False), (None, False), (3, True)])
def test_a_training_cut_off_in_any_step_ends_as_if_it_never_was(
    dropping: TrialTask, every: int | None, average: bool
) -> None:
    dropping = replace(dropping, average=average)
    whole = run(dropping, DrawingData())
    expected = ended(dropping)
    assert [rung.step for rung in whole] == [2, 4, 8]
    assert ("averaged" in expected) == average
    for cut in range(STEPS):
        task = replace(dropping, folder=dropping.folder / str(cut), checkpoint_every=every)
        told = cut_and_go_on(task, cut)
        reached = [rung for rung in whole if rung.step <= cut][-1:]  # told again
        assert told == [*reached, *(rung for rung in whole if rung.step > cut)]
        assert equal(ended(task), expected)
        lines = (task.folder / METRICS).read_text(encoding="utf-8").splitlines()
        assert len(lines) == 3


def test_averaged_weights_are_scored_and_train_nothing(dropping: TrialTask) -> None:
    """On the way, at rungs, and case by case at the end; never as if they were for training."""
    found: list[float] = []

    class Weighed(DrawingData):
        validation_cases, test_cases = ["seen"], ["whole"]

        def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
            assert not net.decoder.deep_supervision  # type: ignore[union-attr]
            found.append(weight_of(net))
            return {"mean": 0.5}

        def score_cases(self, net: nn.Module, device: torch.device, cases: list[str]) -> Any:
            assert not net.training
            return {"whole": {"mean": weight_of(net)}}

    planned, cpu = plan(load(dropping.tree)), torch.device("cpu")
    task = replace(dropping, average=True, folder=dropping.folder / "mean")
    run(task, Weighed())
    state, mean = ended(task), found.copy()
    found.clear()
    plain = replace(dropping, folder=dropping.folder / "last")
    run(plain, Weighed())
    assert equal(state["net"], ended(plain)["net"])
    assert len(mean) == len(found) == 5 and not set(mean) & set(found)
    assert found[-1] == weight_of(state["net"])
    for one, last in ((task, mean[-1]), (plain, found[-1])):
        handed_out = archspec.network.checkpoint.read_checkpoint(one.folder / CHECKPOINT)
        assert weight_of(handed_out) == last, "what is scored is what a model is made of"
        _, test = score_trained(one, planned, Weighed(), cpu)
        assert test["whole"]["mean"] == last


def weight_of(weights: nn.Module | dict[str, Tensor]) -> float:
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    return sum(float(value.double().abs().sum()) for value in state.values())


def test_a_checkpoint_without_averaged_weights_is_begun_anew_where_they_are_scored(
    dropping: TrialTask,
) -> None:
    expected = run(replace(dropping, average=True), DrawingData())
    (dropping.folder / CHECKPOINT).unlink()
    run(dropping, DrawingData())
    assert run(replace(dropping, average=True), DrawingData()) == expected
    assert (dropping.folder / f"{CHECKPOINT}.unreadable").is_file()


def test_when_checkpoints_are_written_changes_nothing(
    dropping: TrialTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(dropping, DrawingData())
    expected = ended(dropping)
    for seed in range(3):
        draws = random.Random(seed)  # a generator of its own
        by_time(monkeypatch, lambda draws=draws: draws.random() < 0.5)  # type: ignore[misc]
        task = replace(dropping, folder=dropping.folder / str(seed))
        assert run(task, DrawingData()) == whole
        assert equal(ended(task), expected)
        again = replace(dropping, folder=dropping.folder / f"{seed}-cut")
        cut_and_go_on(again, STEPS - 1)
        assert equal(ended(again), expected)


def test_by_default_two_minutes_pass_between_two(
    dropping: TrialTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that a step moves on by 50 s: three steps make more than two minutes."""

    class Slow(DrawingData):
        now = 0.0

        def batches(self, *args: Any, **options: Any) -> Iterator[Any]:
            for batch in super().batches(*args, **options):
                Slow.now += 50
                yield batch

    written: list[int] = []
    save = search.trials.train.write_checkpoint
    monkeypatch.setattr("time.monotonic", lambda: Slow.now)
    monkeypatch.setattr(
        search.trials.train,
        "write_checkpoint",
        lambda file, state: (written.append(state["step"]), save(file, state)),
    )
    run(replace(dropping, rung_steps=(2, 10)), Slow())
    assert written == [2, 5, 8, 10]


def test_batches_loaded_ahead_of_a_cut_are_loaded_again(dropping: TrialTask) -> None:
    whole = run(dropping, DrawingData())
    expected = ended(dropping)
    task = replace(dropping, folder=dropping.folder / "ahead", checkpoint_every=3)
    assert cut_and_go_on(task, 7, Loading(2, timeout=60))[-1] == whole[-1]
    assert equal(ended(task), expected)


def test_a_killed_training_goes_on_between_its_rungs(dropping: TrialTask) -> None:
    """A real SIGKILL, in a process of its own."""
    task = replace(dropping, checkpoint_every=3)
    whole = run(replace(task, folder=task.folder / "whole"), DrawingData())
    expected = ended(replace(task, folder=task.folder / "whole"))
    call = f"made['run'](made['TrialTask'](**{vars(task)!r}), made['DrawingData'](7, kill=True))"
    lines = [
        "import runpy, torch",
        "from pathlib import Path, PosixPath",
        f"torch.set_num_threads({torch.get_num_threads()})",
        f"made = runpy.run_path({__file__!r})",
        call,
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = read_checkpoint(task.folder / CHECKPOINT)
    assert state is not None and state["step"] == 6
    data = DrawingData(first=6)
    assert run(task, data) == whole[1:], "the rung at step 4 is told again"
    assert data.step == STEPS, "two steps alone were trained again"
    assert equal(ended(task), expected)


def test_a_checkpoint_between_rungs_means_nothing_to_earlier_releases(dropping: TrialTask) -> None:
    """They would take its weights for those of the rung; without `rung` they begin anew."""
    task = replace(dropping, checkpoint_every=3)
    with pytest.raises(CutOffError):
        run(task, DrawingData(7))
    state = read_checkpoint(task.folder / CHECKPOINT)
    assert state is not None and "rung" not in state and state["between"]["last"]["step"] == 4


@pytest.mark.parametrize("seed", range(5))
def test_overwritten_bytes_are_seen(dropping: TrialTask, seed: int) -> None:
    """PyTorch reads them as weights."""
    run(dropping, DrawingData())
    file, draws = dropping.folder / CHECKPOINT, random.Random(seed)
    content = bytearray(file.read_bytes())
    assert is_whole(file)
    place = draws.randrange(len(content) - 64)
    content[place : place + 64] = draws.randbytes(64)
    file.write_bytes(content)
    assert not is_whole(file) and read_checkpoint(file) is None
