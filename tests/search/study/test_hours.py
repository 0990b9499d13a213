"""How much fits into so many hours: by a speed that is given here, so that no test waits."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import archspec.nnunet.dataset
import search.launch
import search.study.hours
import search.study.loop
import search.study.run
from archspec.costs.profile import Energy, Measured
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.launch import in_hours
from search.space.space import Space, load_space
from search.study.hours import (
    STOPPED_SHARE,
    Again,
    Before,
    HoursPlan,
    Speed,
    measure_speed,
    plan_hours,
)
from search.study.ledger import ended
from search.study.loop import Event
from search.study.task import SearchTask
from search.trials.host import TrainingHost

HOUR = 3600.0
SPEED = Speed(step=0.36, validation=9.0, steps=((1.0, 0.36),), num_cases=4)
"""A training of 1,000 steps takes a tenth of an hour, a validation a fortieth of that."""


@pytest.fixture
def space(tmp_path: Path, space_tree: dict[str, Any]) -> Callable[..., Space]:
    def write(**settings: Any) -> Space:
        first, second = space_tree["encoder"]["stages"]
        stages = [{**first, "width": {"int": [2, 90]}}, {**second, "width": {"int": [2, 90]}}]
        path = tmp_path / "space.yaml"
        section = {"steps": 1000, **settings}
        tree = {**space_tree, "encoder": {"stages": stages}, "search": section}
        path.write_text(dump(tree), encoding="utf-8")
        return load_space(path)

    return write


def planned(space: Space, hours: float, **options: Any) -> HoursPlan:
    speed = options.pop("speed", SPEED)
    return plan_hours(space, TrainingHost(devices=("cpu",) * 2), hours, speed, **options)


@pytest.mark.parametrize("hours", [1.0, 2.5, 24.0])
def test_the_largest_search_that_fits(space: Callable[..., Space], hours: float) -> None:
    found = planned(space(stopper="none"), hours)
    budget = 2 * HOUR * hours
    assert found.trials * found.training <= budget < (found.trials + 1) * found.training
    assert found.training == 360 + 4 * 9.0 and found.searching == HOUR * hours
    assert (found.rungs, found.seeds, found.share) == (4, 0, 1)
    stopped = planned(space(), hours)
    assert stopped.trials == int(budget // (stopped.training * STOPPED_SHARE))


def test_test_cases_are_confirmed_within_the_hours(space: Callable[..., Space]) -> None:
    for hours in (2.0, 8.0, 48.0):
        found = planned(space(test_share=0.2, stopper="none"), hours)
        assert 1 <= found.seeds <= 3
        spent = (found.trials + found.seeds * found.front) * found.training
        assert spent <= 2 * HOUR * hours and found.searching < HOUR * hours
    assert found.seeds == 3
    assert planned(space(test_share=0.2), 8.0, again=Again(0)).seeds == 0
    assert planned(space(), 8.0, again=Again(2)).seeds == 2
    alone, beside = (planned(space(), 8.0, again=Again(2, also)) for also in (0, 4))
    assert beside.trials < alone.trials and beside.front > alone.front
    assert "the front and its rivals again" in beside.text()
    assert "the front again" in alone.text()


def test_validations_and_few_trials_leave_rungs_out(space: Callable[..., Space]) -> None:
    slow = replace(SPEED, validation=15.0)
    assert planned(space(), 24.0, speed=slow).rungs == 1 + (36 // 15)
    assert planned(space(), 24.0, speed=replace(SPEED, validation=0.0)).rungs == 4
    assert planned(space(), 0.2).rungs == 1, "three trainings: none could be stopped"
    assert planned(space(rungs=3), 0.2).rungs == 3, "the space says so"
    assert planned(space(), 24.0, speed=slow, before=Before(7, 4)).rungs == 4, "the run's"


def test_a_run_gets_as_many_again_and_a_small_space_no_more_than_it_has(
    space: Callable[..., Space], tmp_path: Path, space_tree: dict[str, Any]
) -> None:
    new = planned(space(), 4.0, before=Before(0, 4))
    assert planned(space(), 4.0, before=Before(7, 4)).trials == new.trials + 7
    path = tmp_path / "small.yaml"
    anchors = [{}, {"spec": "small-unet"}]
    tree = {**space_tree, "search": {"steps": 1000, "anchors": anchors}}
    path.write_text(dump(tree), encoding="utf-8")
    assert planned(load_space(path), 99.0).trials == 6 + 1
    with pytest.raises(SpecError, match=r"hours.*a training of 1,000 steps takes 6\.\d minutes"):
        planned(space(), 0.01)


def test_speed_is_the_mean_over_draws(
    space: Callable[..., Space],
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step that takes a second per GFLOP: its mean over the draws is that of their FLOPs."""
    timed: list[int] = []

    def profile(net: Any, **options: Any) -> Any:
        assert options["batch"] == 2
        timed.append(flops := search.study.hours.dry_run.__globals__["cost_plan"](net).flops)
        measured = Measured(flops / 1e9, flops / 1e9, None, Energy("none", None), 1, ())
        return SimpleNamespace(measured=measured)

    monkeypatch.setattr(search.study.hours, "profile_plan", profile)
    dataset = fakes.fake_dataset(tmp_path / "data", cases=10)
    dataset.settings["median_image_size_in_voxels"] = [16, 16, 24]
    made = space()
    found = measure_speed(made, dataset, TrainingHost())
    samples = search.study.hours.dry_run(made, dataset.sizes, seconds_per_step=1.0).samples
    mean = sum(one.flops for one in samples) / len(samples) / 1e9
    assert found.step == pytest.approx(mean)
    ordered = sorted(one.flops for one in samples)
    assert timed == [ordered[0], ordered[5], ordered[9]]
    assert found.num_cases == 2 and found.validation == pytest.approx(2 * 2 * mean / 2)
    given = measure_speed(made, dataset, TrainingHost(), seconds_per_step=2.0)
    assert given.step == pytest.approx(2.0 * mean / (ordered[5] / 1e9)) and not given.validation


def test_steps_of_a_gpu_are_not_timed_where_there_is_none(
    space: Callable[..., Space], tmp_path: Path, fakes: SimpleNamespace, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    dataset, host = fakes.fake_dataset(tmp_path / "data"), TrainingHost(devices=("cuda:0",))
    with pytest.raises(SpecError, match="hours: steps are timed on this machine, which has no GPU"):
        measure_speed(space(), dataset, host)
    assert measure_speed(space(), dataset, host, seconds_per_step=2.0).step > 0


def test_no_trial_is_begun_when_the_hours_are_used_up(
    space: Callable[..., Space],
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(ticks) * 1000.0, time=lambda: 0.0)
    monkeypatch.setattr(search.study.loop, "time", clock)
    monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: fakes.FakePool())
    dataset, events = fakes.fake_dataset(tmp_path / "data"), []
    task = SearchTask(space(steps=27, rungs=1), dataset, tmp_path / "run", 50)

    def go_on(seconds: float, resume: bool) -> int:
        later = replace(task, seconds=seconds)
        study = search.study.run.run(later, resume=resume, on_event=events.append)
        return len(ended(study))

    first = go_on(3000.0, False)
    assert 1 <= first < 5
    told = Event("note", -1, "the hours are used up: no further trial is begun", first, 50)
    assert events[-1] == told
    later, found = in_hours(task, 1.0, resume=True, seconds_per_step=100.0)
    assert (found.ended, later.trials) == (first, first + found.trials - first)
    assert later.space is task.space and later.seconds == found.searching
    assert go_on(3000.0, True) > first


def test_the_verb_plans_and_searches(
    space: Callable[..., Space],
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., tuple[int, str, str]],
) -> None:
    space(steps=9, stopper="none")
    dataset = fakes.fake_dataset(tmp_path / "preprocessed")
    monkeypatch.setattr(archspec.nnunet.dataset, "find_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: fakes.FakePool())
    speed = Speed(400.0, 0.0, ((1.0, 400.0),), 1)
    monkeypatch.setattr(search.launch, "measure_speed", lambda *_, **__: speed)
    given = ("search", tmp_path / "space.yaml", "--data", 901, "--hours", 3, "--device", "cpu")
    code, shown, err = cli(*given, "--dry-run")
    assert code == 0, err
    start = "plan for 3 hours, 1 at a time: 3 trials of 9 steps, 1 rung, 0 new seeds for each"
    assert shown.startswith(start) and "400 s at 1 GFLOPs" in shown
    assert not (tmp_path / "run").exists()
    code, out, err = cli(*given, "--out", tmp_path / "run")
    assert code == 0, err
    assert out.startswith(shown) and len(re.findall(r"trial \d: Dice", out + err)) <= 3
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["rungs"] == 1
    for words, told in (
        ((*given, "--trials", 3, "--out", tmp_path / "run"), "give one of --trials and --hours"),
        ((*given[:2], "--hours", 3, "--dry-run"), "--hours needs --data"),
    ):
        code, _, err = cli(*words)
        assert code == 2 and told in err and err.count("\n") == 1
