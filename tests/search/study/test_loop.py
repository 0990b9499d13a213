"""The driver's loop with workers that do not train: what is asked, told and counted."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
import torch
from optuna.trial import TrialState

from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.space import load_space
from search.study.end import End
from search.study.ledger import ended
from search.study.loop import Event, SearchLoop, trial_seed
from search.study.stop import ParetoHalving
from search.study.trial_record import end_of
from search.trials.checkpoint import CHECKPOINT
from search.trials.train import seed_everything
from search.trials.worker import Message

MakeLoop = Callable[..., SearchLoop]


def wide(tree: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return the space with thousands of networks."""
    first, second = tree["encoder"]["stages"]
    stages = [{**first, "width": {"int": [2, 60]}}, {**second, "width": {"int": [2, 60]}}]
    return {**tree, "encoder": {"stages": stages}, "search": {"steps": 27, **settings}}


def test_anchors_first_then_new_networks_only(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    """T15: anchors are queued first, and queued again nothing is added."""
    pool = fakes.FakePool()
    make_loop(study, 6)
    assert len(study.trials) == 2
    loop = make_loop(study, 6)
    assert len(study.trials) == 2
    loop.drive(pool)
    widths = [task.tree["encoder"]["stages"][0]["width"] for task in pool.tasks]
    assert widths[:2] == [2, 4]
    assert len(pool.tasks) == 6, "all six networks of the space, each once"
    trees = [repr(task.tree["encoder"]) for task in pool.tasks]
    assert len(set(trees)) == 6
    rejected = [t for t in study.trials if "rejected" in t.user_attrs]
    assert rejected, "a random sampler repeats itself in a space of six"
    assert all(t.state == TrialState.PRUNED and "trial_hash" not in t.user_attrs for t in rejected)


def test_a_space_that_is_used_up_ends_the_search(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    pool = fakes.FakePool()
    make_loop(study, 50).drive(pool)
    assert len(pool.tasks) == 6


@pytest.mark.parametrize("dice", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_result(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, dice: float
) -> None:
    """T6: neither a loss nor a Dice that is NaN or infinite becomes COMPLETE."""
    fate = {0: Message(0, "failed", reason="loss is nan at step 3")}
    pool = fakes.FakePool(dice=lambda task, step: dice if task.number == 1 else 0.5, fate=fate)
    make_loop(study, 3).drive(pool)
    assert [t.state for t in study.trials[:2]] == [TrialState.FAIL, TrialState.FAIL]
    assert study.trials[0].user_attrs["reason"] == "loss is nan at step 3"
    assert "no Dice" in study.trials[1].user_attrs["reason"]
    assert len(ended(study)) == 3
    assert len(study.best_trials) == 1
    stopper = make_loop(study, 3).stopper  # a resumed search judges by numbers only, too
    assert isinstance(stopper, ParetoHalving)
    known = [others for rung in range(3) for others in stopper.others(rung, trial=-1)]
    assert known and all(math.isfinite(found) for _, found in known)


def test_a_stopped_trial_is_pruned_and_keeps_its_rung(
    study: optuna.Study,
    make_loop: MakeLoop,
    fakes: SimpleNamespace,
    space_tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T14: Optuna's own pruning is never asked; what is stopped is PRUNED and off the front."""

    def never(*_: Any) -> None:
        raise AssertionError("Optuna refuses these with two objectives")

    monkeypatch.setattr(optuna.Trial, "report", never)
    monkeypatch.setattr(optuna.Trial, "should_prune", never)
    events: list[Event] = []
    pool = fakes.FakePool(dice=lambda task, step: 0.8 if task.number < 8 else 0.1)
    make_loop(study, 30, wide(space_tree), events.append).drive(pool)
    stopped = [t for t in study.trials if end_of(t) is End.STOPPED]
    assert stopped
    assert len(ended(study)) == len(pool.tasks) == 30
    for trial in stopped:
        assert trial.state == TrialState.PRUNED and trial.values is None
        last = trial.user_attrs["rungs"][-1]
        assert (last["smoothed"], last["stop"]) == (0.1, True)
        task = next(t for t in pool.tasks if t.number == trial.number)
        assert fakes.step_of_checkpoint(task) == last["step"]
        assert max(step for seed, step in pool.trained if seed == task.seed) == last["step"] < 27
    assert not {t.number for t in study.best_trials} & {t.number for t in stopped}
    assert {e.number for e in events if e.kind == "stopped"} == {t.number for t in stopped}


def test_stopper_none_trains_every_trial_to_the_end(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    pool = fakes.FakePool(dice=lambda task, step: 0.8 if task.number < 8 else 0.1)
    make_loop(study, 20, wide(space_tree, stopper="none")).drive(pool)
    assert [t.state for t in ended(study)] == [TrialState.COMPLETE] * 20


def test_two_workers_train_a_hundred_networks_each_once(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """T3: contiguous numbers, no network twice; draws of equal seeds would collide."""
    pool = fakes.FakePool(jobs=2)
    tree = wide(space_tree, stopper="none")
    make_loop(study, 100, tree).drive(pool)
    trials = study.get_trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    hashes = [t.user_attrs["trial_hash"] for t in ended(study)]
    assert len(hashes) == len(set(hashes)) == 100
    assert len({task.number for task in pool.tasks}) == len(pool.tasks) == 100
    assert len(set(pool.trained)) == len(pool.trained)
    path = Path(pool.tasks[0].folder).parents[2] / "space.yaml"
    workers = [optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)) for _ in "ab"]
    drawn = [load_space(path).suggest(worker.ask()) for worker in workers]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kind", [pytest.param("choice", marks=pytest.mark.long), "float"])
def test_same_seed_same_trials_and_a_resumed_search_draws_on(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any], kind: str
) -> None:
    """T7: with TPE, on a discrete space and on one with a continuous hole beside."""
    tree = wide(space_tree)
    if kind == "float":
        tree["training"] = {"lr": {"float": [1e-4, 1e-2], "log": True}}
    space = tmp_path / "space.yaml"
    space.write_text(dump(tree), encoding="utf-8")

    def params(out: str, *totals: int) -> list[dict[str, Any]]:
        for total in totals:
            study = fakes.run_fake(space, tmp_path / out, total, fakes.FakePool(), seed=3)
        return [t.params for t in ended(study)]

    whole = params("a", 14)
    assert params("b", 14) == whole
    assert len({repr(p) for p in whole}) == 14
    assert params("c", 5, 14) == whole


@pytest.mark.parametrize(
    "sampler",
    ["random", "tpe", {"kind": "tpe", "multivariate": True}],
    ids=repr,
)
def test_what_is_lost_changes_no_network_and_no_seed(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any], sampler: Any
) -> None:
    """A driver is killed twice and a worker once, under trials that were drawn."""
    space = tmp_path / "space.yaml"
    space.write_text(dump(wide(space_tree, sampler=sampler)), encoding="utf-8")

    class KilledError(Exception):
        pass

    def searched(out: str, dies_at: int | None = None, fate: Any = None) -> list[Any]:
        def die(event: Event) -> None:
            if event.kind == "rung" and event.number == dies_at:
                raise KilledError

        pool = fakes.FakePool(fate=fate)
        try:
            study = fakes.run_fake(space, tmp_path / out, 14, pool, seed=3, on_event=die)
        except KilledError:
            return []
        return [(t.params, t.user_attrs["seed"]) for t in ended(study)]

    assert searched("cut", dies_at=4) == searched("cut", dies_at=7) == []
    lost = Message(12, "lost", "worker gone")
    assert searched("cut", fate={12: lost}) == searched("whole")


def test_recovery_queues_each_lost_trial_once_and_inherits_its_checkpoint(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    class KilledError(Exception):
        pass

    def die(event: Event) -> None:
        if event.kind == "rung" and "step 3" in event.text:
            raise KilledError

    first = fakes.FakePool()
    with pytest.raises(KilledError):
        make_loop(study, 2, on_event=die).drive(first)
    assert [t.state for t in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    make_loop(study, 2)  # killed again before anything started
    pool = fakes.FakePool()
    make_loop(study, 2).drive(pool)
    heirs = [t for t in study.trials if t.user_attrs.get("resumed_from") == 0]
    assert [t.state for t in heirs] == [TrialState.COMPLETE]
    seed = trial_seed(7, 0)
    assert first.trained == [(seed, 1), (seed, 3)]
    assert [pair for pair in pool.trained if pair[0] == seed] == [(seed, 9), (seed, 27)]
    assert [rung["step"] for rung in heirs[0].user_attrs["rungs"]] == [1, 3, 9, 27]
    assert study.trials[0].state == TrialState.FAIL
    assert len(ended(study)) == 2


def test_a_trial_killed_between_its_decision_and_its_end_is_ended_not_trained(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    make_loop(study, 2)
    stopped, failed = study.ask(), study.ask()
    stopped.set_user_attr("rungs", [{"step": 1, "scores": {"mean": 0.1}, "stop": True}])
    failed.set_user_attr("reason", "loss is nan")
    make_loop(study, 2)
    assert [t.state for t in study.trials] == [TrialState.PRUNED, TrialState.FAIL]
    assert len(ended(study)) == 2


def test_an_anchor_killed_before_it_drew_its_parameters_is_not_lost(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    make_loop(study, 2)
    study.ask()  # the first anchor is RUNNING now, and has no parameters yet
    assert study.trials[0].params == {}
    pool = fakes.FakePool()
    make_loop(study, 2).drive(pool)
    widths = [task.tree["encoder"]["stages"][0]["width"] for task in pool.tasks]
    assert sorted(widths) == [2, 4]


def test_a_lost_worker_costs_one_retry_from_the_last_rung(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    """T5, T13: a worker that dies or stalls twice on a network ends it."""
    events: list[Event] = []
    fate = {n: Message(n, "lost", reason="worker ended with code -9") for n in (0, 2)}
    pool = fakes.FakePool(fate=fate)
    make_loop(study, 3, on_event=events.append).drive(pool)
    first, heir = study.trials[0], study.trials[2]
    assert first.state == heir.state == TrialState.FAIL
    assert "reason" not in first.user_attrs
    assert heir.user_attrs["resumed_from"] == 0
    assert heir.user_attrs["reason"] == "worker ended with code -9, and so before"
    assert sum(task.seed == trial_seed(7, 0) for task in pool.tasks) == 2
    assert [e.kind for e in events if e.number in (0, 2)][-1] == "failed"
    assert len(ended(study)) == 3


def test_a_late_result_is_refused_and_that_of_the_retry_stands(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    """T13: a driver that was stalled wakes up after another one has taken over."""
    events: list[Event] = []

    class StalledPool(fakes.FakePool):  # type: ignore[misc, name-defined]
        taken_over = False

        def messages(self) -> Iterator[Message]:
            if not self.taken_over:
                self.taken_over = True
                make_loop(study, 2).drive(fakes.FakePool(dice=lambda task, step: 0.7))
            yield from super().messages()

    make_loop(study, 2, on_event=events.append).drive(StalledPool(dice=lambda task, step: 0.1))
    assert [e.kind for e in events if e.number == 0] == ["start", "refused"]
    results = [t.values[0] for t in ended(study)]
    assert results == [0.7, 0.7]
    assert study.trials[0].state == TrialState.FAIL


def test_no_two_trials_of_any_searches_have_one_seed(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    seeds = [trial_seed(seed, number) for seed in (0, 1, 2, 2026) for number in range(2002)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0 and max(seeds) < 2**48
    pool = fakes.FakePool()
    make_loop(study, 2).drive(pool)
    assert [task.seed for task in pool.tasks] == [trial_seed(7, 0), trial_seed(7, 1)]
    for task in pool.tasks:
        seed_everything(task.seed)
        assert torch.initial_seed() == task.seed


def test_a_trial_keeps_the_seed_that_an_earlier_release_gave_it(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    make_loop(study, 1)
    study.ask().set_user_attr("seed", 7000)  # killed: the first anchor is queued again, last
    pool = fakes.FakePool()
    make_loop(study, 2).drive(pool)
    assert [task.seed for task in pool.tasks] == [trial_seed(7, 1), 7000]


def test_another_machine_that_lives_is_not_robbed(study: optuna.Study, make_loop: MakeLoop) -> None:
    make_loop(study, 2)
    study.ask().set_user_attr("host", "node-of-another-cluster")
    with pytest.raises(SpecError, match="trial 0 runs on node-of-another-cluster"):
        make_loop(study, 2)


@pytest.mark.parametrize(
    ("shape", "windows"),
    [([16.0, 40.0, 24.5], 1 * 4 * 3), ([9, 16, 16], 1), ([16, 16], None), (None, None)],
)
def test_flops_of_a_volume_are_those_of_its_windows(
    study: optuna.Study,
    make_loop: MakeLoop,
    fakes: SimpleNamespace,
    shape: list[float] | None,
    windows: int | None,
) -> None:
    loop = make_loop(study, 1)
    loop.dataset.settings["median_image_size_in_voxels"] = shape
    loop.drive(fakes.FakePool())
    known = study.trials[0].user_attrs
    assert known.get("windows_per_volume") == windows
    assert known.get("flops_per_volume") == (windows and windows * known["flops"])


def test_values_are_dice_and_log10_flops(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace
) -> None:
    make_loop(study, 1).drive(fakes.FakePool(dice=lambda task, step: 0.5))
    trial = study.trials[0]
    assert trial.values[0] == 0.5
    assert 10 ** trial.values[1] == pytest.approx(trial.user_attrs["flops"])


def test_a_damaged_checkpoint_is_told_and_stays(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    """What goes on with its trial begins at the first step, and ends the same."""
    loop = make_loop(study, 2)
    trial = study.ask()
    file = tmp_path / "run" / "trials" / f"{trial.number:04d}" / CHECKPOINT
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PK no archive")
    pool, events = fakes.FakePool(), []
    loop = make_loop(study, 2, on_event=events.append)
    loop.drive(pool)
    (told,) = [event for event in events if event.kind == "note"]
    assert told.text == f"{file} is damaged and stays as it is; trained from the first step"
    assert file.read_bytes() == b"PK no archive"
    heir = next(t for t in study.trials if "resumed_from" in t.user_attrs)
    assert told.number == heir.number and heir.state == TrialState.COMPLETE


def test_a_checkpoint_outlives_an_heir_that_was_killed_before_it_had_a_copy(
    study: optuna.Study,
    make_loop: MakeLoop,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trial came to step 3; what went on with it was killed at once, and something goes on."""

    def die(event: Event) -> None:
        if event.kind == "rung" and "step 3" in event.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_loop(study, 2, on_event=die).drive(fakes.FakePool())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SearchLoop, "_inherit", Mock(side_effect=KeyboardInterrupt))
        make_loop(study, 2).drive(fakes.FakePool())
    pool = fakes.FakePool()
    make_loop(study, 2).drive(pool)
    without, heir = (t for t in study.trials if "resumed_from" in t.user_attrs)
    assert without.user_attrs["resumed_from"] == 0
    assert heir.user_attrs["resumed_from"] == without.number
    seed = trial_seed(7, 0)
    assert [pair for pair in pool.trained if pair[0] == seed] == [(seed, 9), (seed, 27)]
