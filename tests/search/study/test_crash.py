"""Kills, full disks and other drivers: nothing lost, nothing twice, one line for the user."""

import contextlib
import random
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

import search.study.run
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.study.ledger import ended
from search.study.storage import Heartbeat, open_run, trial_id


def wide(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the space with thousands of networks."""
    first, second = tree["encoder"]["stages"]
    stages = [{**first, "width": {"int": [2, 60]}}, {**second, "width": {"int": [2, 60]}}]
    return {**tree, "encoder": {"stages": stages}, "search": {"steps": 27}}


@pytest.fixture
def space(tmp_path: Path, space_tree: dict[str, Any]) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(dump(wide(space_tree)), encoding="utf-8")
    return path


@pytest.mark.long
def test_twenty_kills_lose_nothing_and_train_nothing_twice(space: Path, tmp_path: Path) -> None:
    """T1, T2: the storage loads after each kill, what is finished stays, the end is complete."""
    out, trials, rng = tmp_path / "run", 60, random.Random(0)
    script = Path(__file__).parents[1] / "fake_search.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(space), str(out), str(trials)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None

    def search_for(events: int, seconds: float) -> int:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{events} {seconds}\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    finished: dict[int, Any] = {}
    kills = cut = 0
    while kills < 20:
        if search_for(rng.randint(0, 12), rng.uniform(0, 0.1)) == 0:
            break
        kills += 1
        if not (out / "study.db").is_file():
            continue
        try:
            study, _ = open_run(out)
        except SpecError:  # killed before the study was in it
            continue
        now = {t.number: (t.state, t.values, t.user_attrs) for t in ended(study)}
        assert {number: now[number] for number in finished} == finished
        finished = now
        cut += len(study.get_trials(states=(TrialState.RUNNING,)))
    assert search_for(10_000, 0) == 0
    process.stdin.close()
    assert process.wait(60) == 0

    study, _ = open_run(out)
    done = ended(study)
    assert kills >= 10 and cut >= 5, "it was killed while trials ran"
    assert {t.number: (t.state, t.values, t.user_attrs) for t in done}.items() >= finished.items()
    assert len(done) == trials
    hashes = [t.user_attrs["trial_hash"] for t in done]
    assert len(set(hashes)) == trials
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    lost = {t.number for t in study.trials if t.state == TrialState.FAIL and t not in done}
    heirs = [t.user_attrs["resumed_from"] for t in study.trials if "resumed_from" in t.user_attrs]
    assert sorted(heirs) == sorted(lost), "each lost trial was queued again once"
    for trial in done:
        steps = [rung["step"] for rung in trial.user_attrs["rungs"]]
        assert steps == [1, 3, 9, 27][: len(steps)]


def test_a_second_search_in_the_folder_is_refused(
    space: Path, tmp_path: Path, fakes: SimpleNamespace
) -> None:
    def again(event: Any) -> None:
        if event.kind == "start" and event.number == 0:
            with pytest.raises(SpecError, match="another search is running"):
                fakes.run_fake(space, tmp_path / "run", 3, fakes.FakePool())

    fakes.run_fake(space, tmp_path / "run", 2, fakes.FakePool(), on_event=again)


def _storage_with(folder: Path, pragma: str, after: int) -> optuna.storages.RDBStorage:
    """Return the run's storage; after so many statements SQLite refuses to write."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    count = 0

    @sqlalchemy.event.listens_for(storage.engine, "before_cursor_execute")
    def limit(connection: Any, cursor: Any, *_: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            cursor.execute(pragma)

    return storage


@pytest.mark.parametrize(
    ("pragma", "reason"),
    [
        ("PRAGMA max_page_count = 1", "database or disk is full"),
        ("PRAGMA query_only = 1", "attempt to write a readonly database"),
    ],
)
def test_a_storage_that_cannot_be_written_ends_in_one_line(
    space: Path,
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    pragma: str,
    reason: str,
) -> None:
    """T19: and the search goes on when it can be written again."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(
            search.study.run,
            "open_storage",
            lambda folder, create: _storage_with(folder, pragma, 400),
        )
        with pytest.raises(SpecError, match=reason) as error:
            fakes.run_fake(space, out, 60, fakes.FakePool())
    assert "\n" not in str(error.value) and "`resume`" in str(error.value)
    before = len(ended(open_run(out)[0]))
    study = fakes.run_fake(space, out, before + 3, fakes.FakePool())
    assert len(ended(study)) == before + 3


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("storage", "checkpoint.pt: cannot be written: No space left on device"),
        ("data", "case case_7: image holds NaN in 1 voxel"),
    ],
)
def test_what_no_trial_can_help_ends_the_search_and_loses_none(
    space: Path, tmp_path: Path, fakes: SimpleNamespace, event: Any, why: str
) -> None:
    """T19."""
    from search.trials.worker import Message

    out = tmp_path / "run"
    pool = fakes.FakePool(fate={1: Message(1, event, reason=why)})
    with pytest.raises(SpecError, match=re.escape(why)):
        fakes.run_fake(space, out, 3, pool)
    study = fakes.run_fake(space, out, 3, fakes.FakePool())
    assert [t.state for t in study.trials] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]
    assert "reason" not in study.trials[1].user_attrs


def test_a_folder_that_cannot_be_made_ends_in_one_line(
    space: Path, tmp_path: Path, fakes: SimpleNamespace
) -> None:
    """T19."""
    out = tmp_path / "run"
    out.symlink_to("/proc/nothing-can-be-made-here")
    with pytest.raises(SpecError, match="cannot be written: "):
        fakes.run_fake(space, out, 3, fakes.FakePool())


@pytest.mark.filterwarnings("ignore")
def test_trials_of_a_driver_with_a_heartbeat_are_not_stale(tmp_path: Path) -> None:
    """The thread beats for ask and tell; without it the trial is failed as stale, and queued."""
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{tmp_path / 'study.db'}", heartbeat_interval=1, grace_period=2
    )
    study = optuna.create_study(storage=storage)
    alive, dead = study.ask(), study.ask()
    storage.record_heartbeat(trial_id(dead))
    with Heartbeat(storage, lambda: [trial_id(alive)], interval=0.2):
        time.sleep(4)
        optuna.storages.fail_stale_trials(study)
    states = [t.state for t in study.get_trials()]
    assert states == [TrialState.RUNNING, TrialState.FAIL]


def test_a_trial_has_a_sign_of_life_before_it_has_a_host(
    space: Path, tmp_path: Path, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its first seconds and moved to another machine, a search can still be resumed."""
    out = tmp_path / "run"

    def looked_at(trial: optuna.Trial, name: str, value: object) -> None:
        if name == "host":
            row = "SELECT COUNT(*) FROM trial_heartbeats WHERE trial_id = ?"
            with contextlib.closing(sqlite3.connect(out / "study.db")) as database:
                seen.append(database.execute(row, (trial_id(trial),)).fetchone()[0])
        set_attribute(trial, name, value)

    seen: list[int] = []
    set_attribute = optuna.Trial.set_user_attr
    monkeypatch.setattr(optuna.Trial, "set_user_attr", looked_at)
    fakes.run_fake(space, out, 2, fakes.FakePool())
    assert seen == [1, 1]


def test_a_run_of_the_first_release_goes_on_as_it_began(
    space: Path, tmp_path: Path, fakes: SimpleNamespace
) -> None:
    """Its record knows of no stopper, and its rungs were even."""
    import json

    out = tmp_path / "run"
    old_settings = {"steps": 27, "batch_size": 2, "rungs": 3, "anchors": []}
    text = space.read_text(encoding="utf-8")
    space.write_text(text.replace("steps: 27", "steps: 27, rungs: 3"), encoding="utf-8")
    fakes.run_fake(space, out, 1, fakes.FakePool())
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    (out / "run.json").write_text(json.dumps({**record, "settings": old_settings}))
    pool = fakes.FakePool()
    fakes.run_fake(space, out, 3, pool)
    assert {task.rung_steps for task in pool.tasks} == {(9, 18, 27)}
    assert len(pool.tasks) == 2
