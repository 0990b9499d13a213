"""Limits: what is too big is never trained, and Optuna learns of it."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import archspec
from archspec import plan
from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.limits import check_limits
from search.space.settings import LimitSettings
from search.space.space import load_space
from search.study.ledger import ended
from search.study.loop import Event, SearchLoop

MakeLoop = Callable[..., SearchLoop]


def test_each_limit_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constraint is at most 0 where the limit is kept, log10 of the excess where not."""
    found = cost_plan(plan(archspec.load("small-unet"), patch_size=(32, 32, 32)))
    needed = training_memory(found.planned, batch=2).total
    gflops = found.flops / 1e9
    exact = LimitSettings(gflops=gflops, params=found.params, memory=f"{needed / 1e6 + 1}MB")
    kept = check_limits(exact, found, batch=2, amp=False)
    assert [one.name for one in kept] == ["gflops", "params", "memory"]
    assert all(-0.1 < one.constraint <= 0 for one in kept)
    [over] = check_limits(LimitSettings(gflops=gflops / 10), found, batch=2, amp=False)
    assert over.constraint == pytest.approx(1)
    assert over.text.startswith(f"{gflops:.3f} GFLOPs, over the limit of ")
    small = LimitSettings(memory=f"{needed / 2e6}MB")
    assert check_limits(small, found, batch=2, amp=False)[0].constraint > 0.29
    assert check_limits(LimitSettings(), found, batch=2, amp=False) == []

    monkeypatch.setattr("search.space.limits.training_memory", None)
    too_big = LimitSettings(params=1, memory="1MB")
    assert [one.name for one in check_limits(too_big, found, batch=2, amp=False)] == ["params"]


def test_nothing_over_a_limit_is_trained(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """T4: the trainer is not called, constraints are positive, the front keeps the limit."""
    loop = make_loop(study, 6)
    costs = [_params(loop, anchor) for anchor in loop.space.anchors()]
    assert costs[0] < costs[1]
    limited = {**space_tree, "search": {**space_tree["search"], "limits": {"params": costs[0]}}}
    events: list[Event] = []
    pool = fakes.FakePool()
    fresh = optuna.create_study(
        directions=study.directions, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    make_loop(fresh, 6, limited, events.append).drive(pool)
    rejected = [t for t in fresh.trials if t.constraints.get("params", 0) > 0]
    assert 1 in {t.number for t in rejected}, "the second anchor too"
    numbers = {task.number for task in pool.tasks}
    assert numbers and not numbers & {t.number for t in rejected}
    for trial in rejected:
        assert trial.state == TrialState.PRUNED
        assert f"over the limit of {costs[0]:,}" in trial.user_attrs["rejected"]
    assert all(t.user_attrs["params"] <= costs[0] for t in ended(fresh))
    assert all(t.constraints == {"params": pytest.approx(0, abs=1)} for t in fresh.best_trials)
    told = {e.number for e in events if e.kind == "rejected"}
    shown = [str(sorted(t.params.items())) for t in rejected if t.number in told]
    assert len(shown) == len(set(shown)), "each network is refused aloud once"
    assert set(shown) == {str(sorted(t.params.items())) for t in rejected}
    assert events[-1].kind == "note" and "every one of the 6 combinations" in events[-1].text


def test_a_limit_that_nothing_keeps_ends_the_search(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """Also with a range, which is never used up: repeats of what was refused are counted."""
    limited = {**space_tree, "search": {**space_tree["search"], "limits": {"params": 1}}}
    limited["training"] = {"lr": {"float": [1e-3, 1e-2]}}
    events: list[Event] = []
    pool = fakes.FakePool()
    make_loop(study, 2, limited, events.append).drive(pool)
    assert not pool.tasks
    assert re.search(r"nothing new to train: .* over a limit has \S+ GFLOPs", events[-1].text)


def _params(loop: SearchLoop, anchor: dict[str, Any]) -> int:
    study = optuna.create_study()
    study.enqueue_trial(anchor)
    return archspec.cost(loop.space.suggest(study.ask())).params


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        ({"memory": "12"}, "must be a size such as 12GB"),
        ({"memory": 12}, "must be a size such as 12GB"),
        ({"gflops": 0}, "greater than 0"),
        ({"glops": 5}, "glops"),
    ],
)
def test_wrong_limits_are_refused(
    tmp_path: Path, space_tree: dict[str, Any], limits: dict[str, Any], part: str
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(dump({**space_tree, "search": {"limits": limits}}), encoding="utf-8")
    with pytest.raises(SpecError, match=part) as error:
        load_space(path)
    assert "\n" not in str(error.value)
