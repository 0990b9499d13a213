"""T17: a study that an earlier release stored opens, and its search goes on.

`stored/first_release` was made by the search as it first was (even rungs, no stopper, no limits, no
test part), with trainings made up: five trials ended, the sixth was killed after its first rung.
`stored/first_release.yaml` is the space as its user wrote it. Neither is ever written anew.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

import search.retrain.confirm
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.write import best_trial, front_table, report_json, write_report
from search.retrain.confirm import confirm
from search.space.space import load_space
from search.study.record import kept_settings
from search.study.storage import open_run

STORED = Path(__file__).with_name("stored")
SPACE = STORED / "first_release.yaml"
DICE = {0: 0.5, 1: 0.537, 3: 0.511, 4: 0.548}
"""Of the trials that were trained to the end."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(STORED / "first_release", tmp_path / "run")
    return tmp_path / "run"


def test_its_trials_are_read_as_they_were(run: Path) -> None:
    study, record = open_run(run)
    assert record.settings == {
        "steps": 30,
        "batch_size": 2,
        "rungs": 3,
        "anchors": [{}, {"encoder.stages.0.width": 4}],
    }
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert {t.number: t.values[0] for t in complete} == DICE
    assert study.trials[2].user_attrs["reason"] == "loss is nan at step 3"
    assert study.trials[5].state == TrialState.RUNNING


def test_report_and_best_read_it(run: Path) -> None:
    files = write_report(run)
    assert all(file.stat().st_size for file in files)
    assert "0.548" in front_table(run)
    assert 4 in report_json(run)["front"]
    best = best_trial(run)
    assert best.number == 4
    assert best.spec.encoder.stages[1].width == 8


def test_its_search_goes_on_as_it_began(run: Path, fakes: SimpleNamespace) -> None:
    before = {t.number: (t.state, t.values, t.user_attrs) for t in open_run(run)[0].trials[:5]}
    pool = fakes.FakePool()
    study = fakes.run_fake(SPACE, run, 8, pool)
    now = {t.number: (t.state, t.values, t.user_attrs) for t in study.trials[:5]}
    assert now == before, "what had ended stays as it was"
    assert study.trials[5].state == TrialState.FAIL
    heirs = [t for t in study.trials if t.user_attrs.get("resumed_from") == 5]
    assert [t.state for t in heirs] == [TrialState.COMPLETE]
    assert heirs[0].params == study.trials[5].params
    assert heirs[0].user_attrs["seed"] == study.trials[5].user_attrs["seed"]
    assert {task.rung_steps for task in pool.tasks} == {(10, 20, 30)}
    assert not any(task.average for task in pool.tasks), "weights were scored as they stood"
    assert len(pool.tasks) == 3, "five of eight had ended"
    params = [tuple(sorted(t.params.items())) for t in study.trials if "started" in t.user_attrs]
    assert len(set(params)) == len(params) - 1, "the lost trial alone was begun twice"
    assert front_table(run)


def test_its_front_can_be_confirmed(
    run: Path,
    fakes: SimpleNamespace,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = fakes.fake_dataset(run.parent / "preprocessed")
    monkeypatch.setattr(search.retrain.confirm, "find_dataset", lambda *_, **__: dataset)
    pool = scoring_pool(lambda task, part, index: 0.5 + index / 100)
    in_place_of_workers(pool)
    found = confirm(run, seeds=2)
    assert found.points[-1].trial == 4
    assert found.points[-1].searched == 0.548
    assert found.compared_on == "validation", "it had no test part"
    assert {(task.rung_steps, task.average) for task in pool.tasks} == {((10, 20, 30), False)}
    assert not found.failed


def test_a_run_goes_on_by_the_budgets_that_it_was_started_with(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """Releases before budgets per voxel did not write that there were none."""
    match = {"macs": {"choice": [2e6, 4e6]}, "multiple": 1}
    tree = {**space_tree, "search": {**space_tree["search"], "match": match}}
    space, folder = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(tree), encoding="utf-8")
    fakes.run_fake(space, folder, 2, fakes.FakePool())
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["match"].pop("macs_per_voxel", "missing") is None
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    study = fakes.run_fake(space, folder, 3, fakes.FakePool())
    assert all(trial.params["search.match.macs"] in (2e6, 4e6) for trial in study.trials)
    assert len([trial for trial in study.trials if trial.values]) == 3


@pytest.fixture
def moasha(run: Path) -> Path:
    """Return the run as if its trials had been stopped by MO-ASHA, which releases had once."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["settings"]["stopper"] = "moasha"
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return run


def test_a_run_with_a_stopper_that_is_gone_is_read_and_confirmed(
    moasha: Path,
    fakes: SimpleNamespace,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_report(moasha)
    assert best_trial(moasha).number == 4
    dataset = fakes.fake_dataset(moasha.parent / "preprocessed")
    monkeypatch.setattr(search.retrain.confirm, "find_dataset", lambda *_, **__: dataset)
    pool = scoring_pool(lambda task, part, index: 0.5)
    in_place_of_workers(pool)
    assert confirm(moasha, seeds=1).points[-1].trial == 4
    assert {task.rung_steps for task in pool.tasks} == {(10, 20, 30)}


def test_a_run_with_a_stopper_that_is_gone_goes_on_by_one_asked_for(
    moasha: Path, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    """What it was stopped by before stays on record: a control must have had the same."""
    before = (moasha / "run.json").read_bytes()
    for act in (
        lambda: kept_settings(moasha, load_space(SPACE)),
        lambda: fakes.run_fake(SPACE, moasha, 6, fakes.FakePool()),
    ):
        with pytest.raises(SpecError, match=r"'moasha'.*`stopper` pash or none") as told:
            act()
        assert "\n" not in str(told.value)
    assert (moasha / "run.json").read_bytes() == before
    text = SPACE.read_text(encoding="utf-8").replace("search:", "search:\n  stopper: pash", 1)
    asked = tmp_path / "asked.yaml"
    asked.write_text(text, encoding="utf-8")
    fakes.run_fake(asked, moasha, 6, fakes.FakePool())
    study = fakes.run_fake(SPACE, moasha, 7, fakes.FakePool())
    record = json.loads((moasha / "run.json").read_text(encoding="utf-8"))
    assert (record["settings"]["stopper"], record["earlier_stopper"]) == ("pash", "moasha")
    assert {t.number: t.values[0] for t in study.trials if t.number in DICE} == DICE
    asked.write_text(text.replace("pash", "none"), encoding="utf-8")
    with pytest.raises(SpecError, match="settings differ from the run's"):
        fakes.run_fake(asked, moasha, 8, fakes.FakePool())


@pytest.mark.parametrize(
    ("schema", "advice"),
    [
        ("v2.6.0.a", r"optuna storage upgrade --storage sqlite:////.*/run/study\.db"),
        ("v99.0.0.a", "updating optuna"),
    ],
    ids=["older", "newer"],
)
def test_a_schema_of_another_optuna_is_told_in_one_line(
    run: Path, fakes: SimpleNamespace, schema: str, advice: str
) -> None:
    with sqlite3.connect(run / "study.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    database.close()
    for act in (lambda: open_run(run), lambda: fakes.run_fake(SPACE, run, 8, fakes.FakePool())):
        with pytest.raises(SpecError, match=advice) as told:
            act()
        assert str(told.value).startswith(f"{run / 'study.db'}: ")
        assert "\n" not in str(told.value) and "STORAGE_URL" not in str(told.value)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["dataset"] == "Dataset901_X"
