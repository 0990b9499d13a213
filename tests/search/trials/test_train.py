"""Training one trial on data made up here: rungs, checkpoints, losses that are no number."""

import json
import math
import runpy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.network.plan import plan
from archspec.spec.load import load
from archspec.training.losses import DivergedError
from search.trials.batches import Loading
from search.trials.train import (
    CHECKPOINT,
    METRICS,
    CheckpointError,
    Listener,
    Rung,
    StoppedError,
    TrialTask,
    train,
)

pytestmark = pytest.mark.smoke

FakeData = runpy.run_path(str(Path(__file__).parents[1] / "fake_training.py"))["FakeData"]


def run(
    task: TrialTask,
    data: Any,
    report: Callable[[Rung], None] = lambda _: None,
    loading: Loading = Loading(),  # noqa: B008
) -> Rung:
    planned = plan(load(task.tree))
    device = torch.device("cpu")
    return train(task, planned, data, device, Listener(report), loading)


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
