"""Each sampler searches, is killed, and goes on: nothing lost, nothing drawn again."""

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.references import reference_of
from search.space.samplers import (
    SAMPLERS,
    CostAwareSpec,
    GpSpec,
    Nsga2Spec,
    RandomSpec,
    SamplerSpec,
    TpeSpec,
)
from search.space.space import load_space
from search.study.end import End
from search.study.ledger import ended
from search.study.sampling import OfSpace, set_sampler
from search.study.storage import open_run, quiet, trial_id
from search.study.trial_record import end_of

WIDTH = {"int": [2, 60]}
QUICK: dict[str, Any] = {
    "tpe": {"kind": "tpe", "n_startup_trials": 3},
    "nsga2": {"kind": "nsga2", "population_size": 2},
    "nsga3": {"kind": "nsga3", "population_size": 2},
    "gp": {"kind": "gp", "n_startup_trials": 3},
    "random": "random",
    "cost_aware": {"kind": "ours", "n_startup_trials": 3, "candidates": 4},
}
"""Samplers that are past their random draws after few trials."""
SHARED = {"encoder.stages.0.width", "encoder.stages.1.width", "encoder.stages.1.mixer"}
CONDITIONAL = "encoder.stages.1.mixer[conv].kernel_size"


@pytest.fixture
def space(tmp_path: Path, space_tree: dict[str, Any]) -> Callable[..., Path]:
    """Return a function that writes a space of thousands of networks with this sampler."""

    def write(sampler: Any = None, **settings: Any) -> Path:
        first, second = space_tree["encoder"]["stages"]
        mixer = {"choice": [{"kind": "conv", "kernel_size": {"choice": [1, 3]}}, "identity"]}
        mixer["choice"][1] = {"kind": "identity"}
        stages = [{**first, "width": WIDTH}, {**second, "width": WIDTH, "mixer": mixer}]
        section = {"steps": 27, "rungs": 1, "stopper": "none", **settings}
        section |= {} if sampler is None else {"sampler": sampler}
        path = tmp_path / "space.yaml"
        path.write_text(
            dump({**space_tree, "encoder": {"stages": stages}, "search": section}), encoding="utf-8"
        )
        return path

    return write


class Killed(BaseException):
    """Leaves the study as a kill does: nothing between here and the driver catches it."""


def killed_in(trial: int) -> Callable[[Any], None]:
    """Return what kills the search at the first rung of the trial that is started as this one."""
    started: list[int] = []

    def on_event(event: Any) -> None:
        started.extend([event.number] * (event.kind == "start"))
        if event.kind == "rung" and len(started) == trial:
            raise Killed

    return on_event


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("nsga2", "gp", "cost_aware")
        else pytest.param(name, marks=pytest.mark.long)
        for name in SAMPLERS
    ],
)
def test_a_killed_search_goes_on(
    name: str, space: Callable[..., Path], tmp_path: Path, fakes: SimpleNamespace
) -> None:
    path, out = space(QUICK[name], anchors=[{}]), tmp_path / "run"
    with pytest.raises(Killed):
        fakes.run_fake(path, out, 8, fakes.FakePool(), on_event=killed_in(5))
    before = open_run(out)[0].trials
    (cut,) = [t.number for t in before if t.state == TrialState.RUNNING]
    study = fakes.run_fake(path, out, 8, fakes.FakePool())
    trials = study.trials
    assert [t.values for t in before[:cut]] == [t.values for t in trials[:cut]]
    assert [end_of(t) for t in trials].count(End.LOST) == 1
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    done = ended(study)
    assert len(done) == 8 and trials[cut + 1].params == trials[cut].params
    assert len({t.user_attrs["trial_hash"] for t in done}) == 8, "no network twice"
    drawn = [t for t in trials[cut + 2 :] if t.state == TrialState.COMPLETE]
    if name in ("tpe", "random", "cost_aware"):
        assert End.REPEATED not in map(end_of, trials), "the seed does not draw again"
    elif name == "gp":
        assert all("gp:relative_params:0" in t.system_attrs for t in drawn)
    else:
        key = f"{name.upper().replace('NSGA2', 'NSGAII').replace('NSGA3', 'NSGAIII')}Sampler"
        generations = [t.system_attrs.get(f"{key}:generation") for t in trials]
        assert generations[0] is None, "an anchor is in no generation"
        assert max(g for g in generations[1:cut] if g is not None) == 1
        last = max(g for g in generations[cut + 2 :] if g is not None)
        assert last >= 2, "counted on"
        parents = study._storage.get_study_system_attrs(study._study_id)[f"{key}:parent:2"]
        assert min(parents) <= trial_id(trials[cut]), "of before the kill"


@pytest.mark.long
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_process_that_is_killed_goes_on(
    name: str, space: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = space(QUICK[name]), tmp_path / "run"
    script = Path(__file__).parents[1] / "fake_search.py"
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(out), "12"],
        input="12 0\n15 0.01\n9999 0\n",
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 2 + ["0"], done.stderr
    study, _ = open_run(out)
    assert len({t.user_attrs["trial_hash"] for t in ended(study)}) == 12
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_an_anchor_without_holes_leaves_the_others_to_learn_from(
    space: Callable[..., Path], tmp_path: Path, fakes: SimpleNamespace
) -> None:
    path = space("random", anchors=[{"spec": "small-unet"}])
    study = fakes.run_fake(path, tmp_path / "run", 6, fakes.FakePool())
    assert reference_of(study.trials[0]) is not None and not study.trials[0].params
    for kind in SAMPLERS:
        sampler: SamplerSpec = SAMPLERS[kind]()
        if not sampler.models_shared_holes:
            continue
        set_sampler(study, sampler, 0)
        assert isinstance(study.sampler, OfSpace)
        named = study.sampler.infer_relative_search_space(study, study.trials[-1])
        assert set(named) == SHARED
        with quiet():
            bare = sampler.make(0).infer_relative_search_space(study, study.trials[-1])
        assert not bare, "what it would see without us"
    assert any(CONDITIONAL in trial.params for trial in study.trials)
    joint = TpeSpec(multivariate=True)
    set_sampler(study, joint, 0)
    assert set(study.sampler.infer_relative_search_space(study, study.trials[-1])) == SHARED
    set_sampler(study, TpeSpec(), 0)
    assert isinstance(study.sampler, optuna.samplers.TPESampler)


@pytest.mark.parametrize("end", [End.REPEATED, End.OVER_LIMIT, End.INVALID])
def test_gp_draws_at_random_after_a_network_that_was_refused(
    end: End, space: Callable[..., Path], tmp_path: Path, fakes: SimpleNamespace
) -> None:
    study = fakes.run_fake(space("random"), tmp_path / "run", 1, fakes.FakePool())
    last = study.trials[-1]
    again = optuna.trial.create_trial(state=TrialState.PRUNED, user_attrs={"end": end.value})
    for sampler, learns in ((GpSpec(), False), (Nsga2Spec(), True)):
        set_sampler(study, sampler, 0)
        study.sampler.after_trial(study, again, TrialState.PRUNED, None)
        assert bool(study.sampler.infer_relative_search_space(study, last)) == learns
        study.sampler.after_trial(study, last, TrialState.COMPLETE, last.values)
        assert study.sampler.infer_relative_search_space(study, last)


def test_a_resumed_search_may_take_another_sampler(
    space: Callable[..., Path], tmp_path: Path, fakes: SimpleNamespace
) -> None:
    out = tmp_path / "run"

    def recorded() -> tuple[Any, list[Any]]:
        settings = json.loads((out / "run.json").read_text(encoding="utf-8"))["settings"]
        lines = (out / "sessions.jsonl").read_text(encoding="utf-8").splitlines()
        return settings.get("sampler"), [json.loads(line).get("sampler") for line in lines]

    first = fakes.run_fake(space(), out, 3, fakes.FakePool()).trials
    assert recorded() == (None, [None]), "as earlier releases wrote it"
    assert "sampler" not in (out / "space.yaml").read_text(encoding="utf-8")
    study = fakes.run_fake(space("random"), out, 4, fakes.FakePool())
    assert [t.values for t in study.trials[:3]] == [t.values for t in first], "they stand"
    assert isinstance(study.sampler, optuna.samplers.RandomSampler)
    assert recorded() == ("random", [None, "random"])
    study = fakes.run_fake(space(), out, 5, fakes.FakePool())
    assert isinstance(study.sampler, optuna.samplers.RandomSampler), "not asked for: it stays"
    study = fakes.run_fake(space("tpe"), out, 6, fakes.FakePool())
    assert isinstance(study.sampler, optuna.samplers.TPESampler)
    assert recorded() == (None, [None, "random", "random", None])


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        (
            "nsga4",
            "must be a sampler, one of tpe, nsga2, nsga3, gp, random, cost_aware, or a mapping",
        ),
        ("nsga4", "did you mean 'nsga3'?"),
        ({"population_size": 3}, "must be a sampler"),
        ({"kind": "nsga2", "population": 3}, "sampler.population: unknown key"),
        ({"kind": "gp", "population_size": 3}, "only kind nsga2 and nsga3 has it"),
        ({"kind": "nsga2", "population_size": 1}, "greater than or equal to 2, but is 1"),
        (["tpe"], "must be a sampler"),
    ],
)
def test_what_is_no_sampler_is_refused_where_it_stands(
    space: Callable[..., Path], sampler: Any, told: str
) -> None:
    path = space(sampler)
    with pytest.raises(SpecError) as error:
        load_space(path)
    line = str(error.value)
    assert told in line and "\n" not in line
    assert line.startswith(f"{path}:") and "search.sampler" in line


@pytest.mark.parametrize(
    ("sampler", "written"),
    [
        (TpeSpec(), "tpe"),
        (RandomSpec(), "random"),
        (GpSpec(n_startup_trials=10), "gp"),
        (CostAwareSpec(), "cost_aware"),
        (TpeSpec(group=True), {"kind": "tpe", "group": True}),
    ],
)
def test_options_that_say_nothing_are_not_written(
    space: Callable[..., Path], sampler: SamplerSpec, written: Any
) -> None:
    assert sampler.written() == written
    assert load_space(space(written)).settings.sampler == sampler


def test_a_package_that_is_missing_is_told_before_anything_is_written(
    space: Callable[..., Path],
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, find = space("gp"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "scipy" and find(name))
    monkeypatch.setattr(GpSpec, "missing", lambda self: ("scipy",))
    with pytest.raises(SpecError, match=r"search.sampler: the sampler gp needs scipy") as error:
        fakes.run_fake(path, tmp_path / "run", 3, fakes.FakePool())
    assert str(error.value).startswith(f"{path}:") and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
