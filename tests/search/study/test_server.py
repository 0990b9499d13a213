"""The study on a PostgreSQL server: like in the folder, one driver, outages, and no password."""

import io
import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

import search.study.bridge
import search.study.recovery
from archspec.spec.yaml_file import dump
from blocks.errors import AbsentError, SpecError
from search.report.status import read_status
from search.study.cluster import check_cluster
from search.study.ledger import ended
from search.study.lock import LockLostError, ServerLock, key_of
from search.study.server import VARIABLE, Server
from search.study.storage import open_run
from tests.postgres import PASSWORD, Postgres

Searching = Callable[..., optuna.Study]
URL = "postgresql://me:pass@dead.example:1/labs"


class KilledError(BaseException):
    """The driver ends here, and tells nobody."""


@pytest.fixture
def space(tmp_path: Path, space_tree: dict[str, Any]) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(dump(space_tree), encoding="utf-8")
    return path


@pytest.fixture
def searching(
    space: Path, tmp_path: Path, postgres: Postgres, fakes: SimpleNamespace
) -> Iterator[Searching]:
    """Return a function that runs or resumes a search of the server in `run`."""

    def run(trials: int, out: Path = tmp_path / "run", **given: Any) -> optuna.Study:
        pool = given.pop("pool", None) or fakes.FakePool()
        new = not (out / "run.json").is_file()
        storage = given.pop("storage", postgres.url if new else None)
        found: optuna.Study = fakes.run_fake(space, out, trials, pool, storage=storage, **given)
        return found

    yield run


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the password in libpq's own way to whoever has the address from a run folder."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def told(study: optuna.Study) -> list[Any]:
    """Return what came of the trials, without dates and machines."""
    kept = [{**t.user_attrs, "started": 0} for t in study.trials]
    return [(t.state, t.params, t.values, one) for t, one in zip(study.trials, kept, strict=True)]


def test_a_study_is_the_same_on_a_server(
    space: Path, tmp_path: Path, searching: Searching, fakes: SimpleNamespace
) -> None:
    searching(4, tmp_path / "server")
    fakes.run_fake(space, tmp_path / "folder", 4, fakes.FakePool())
    server, folder = (open_run(tmp_path / name)[0] for name in ("server", "folder"))
    assert told(server) == told(folder)
    files = {name: {p.name for p in (tmp_path / name).iterdir()} for name in ("server", "folder")}
    assert files["folder"] - files["server"] == {"study.db"}
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in files]
    assert records[0].pop("storage")["url"].startswith("postgresql://archspec@127.0.0.1:")
    assert records[0] == records[1], "a run in its folder notes no storage"
    status = read_status(tmp_path / "server")
    assert (status.activity, status.ended) == ("ended", 4)


def test_no_password_is_written_or_told(
    space: Path,
    tmp_path: Path,
    postgres: Postgres,
    searching: Searching,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in a file of the run, nor in output, nor in a traceback while the server is dead."""
    from archspec.cli.interrupts import same_command
    from search.report.write import write_report

    monkeypatch.setattr("sys.argv", ["archspec", "search", "x", f"--storage={postgres.url}"])
    out, shown = tmp_path / "run", [same_command("--resume")]
    searching(3, on_event=lambda event: shown.append(event.text))
    write_report(out)
    monkeypatch.setenv(VARIABLE, postgres.url)
    monkeypatch.delenv("PGPASSWORD")
    assert len(open_run(out)[0].trials) >= 3, "the environment has the password of this server"
    postgres.stop()
    for act in (lambda: searching(4), lambda: open_run(out), lambda: searching(4, tmp_path / "x")):
        with pytest.raises(SpecError, match=r"cannot be used: .*refused") as error:
            act()
        assert "\n" not in str(error.value)
        page = io.StringIO()
        traceback.print_exception(error.value, file=page)
        shown += [page.getvalue(), repr(error.value)]
    postgres.start()
    assert not (tmp_path / "x").exists(), "it is asked before anything is written"
    secrets = [PASSWORD, postgres.url.partition("archspec:")[2].partition("@")[0]]
    everything = shown + [
        path.read_bytes().decode(errors="replace") for path in out.rglob("*") if path.is_file()
    ]
    assert len(everything) > 10
    assert not [one for one in everything if any(secret in one for secret in secrets)]


def test_another_driver_is_refused_and_writes_nothing(tmp_path: Path, searching: Searching) -> None:
    out, seen = tmp_path / "run", []

    def again(event: Any) -> None:
        if event.kind == "rung" and not seen:
            before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
            with pytest.raises(SpecError, match="another search is running in this study"):
                searching(5)
            seen.append({p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before)

    searching(2, on_event=again)
    assert seen == [True]


def test_a_killed_driver_is_followed_from_another_machine_at_once(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(event: Any) -> None:
        if event.kind == "rung":
            raise KilledError

    with pytest.raises(KilledError):
        searching(3, on_event=kill)
    monkeypatch.setattr(search.study.recovery.socket, "gethostname", lambda: "another")
    study = searching(3)
    assert len(ended(study)) == 3
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    heirs = [t for t in study.trials if "resumed_from" in t.user_attrs]
    assert [t.state for t in heirs] == [TrialState.COMPLETE]


def cut(postgres: Postgres, server: Server) -> None:
    """End the connection that holds the study's lock."""
    engine = server.engine()
    with engine.connect() as connection:
        held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        key = "((classid::bigint << 32) | objid::bigint) = :key"
        assert connection.execute(text(f"{held} AND {key}"), {"key": key_of(server)}).all()
    engine.dispose()


def test_one_of_two_drivers_goes_on_when_the_lock_is_cut(postgres: Postgres) -> None:
    server = Server.new(postgres.url)
    with ServerLock(server) as first:
        cut(postgres, server)
        first.check()  # nobody else was there
        with pytest.raises(SpecError, match="another search is running"), ServerLock(server):
            pass
        cut(postgres, server)
        with ServerLock(server), pytest.raises(LockLostError, match="took this study over"):
            first.check()
        first.check()


def test_who_slept_through_another_driver_writes_nothing(
    tmp_path: Path, postgres: Postgres, searching: Searching
) -> None:
    """The lock is free again, and the study is not what it was."""
    out, left = tmp_path / "run", []

    def follow(event: Any) -> None:
        if event.kind == "rung" and not left:
            cut(postgres, Server.of(open_run(out)[1].storage or {}))
            searching(2)
            left.append(told(open_run(out)[0]))

    with pytest.raises(LockLostError):
        searching(3, on_event=follow)
    assert told(open_run(out)[0]) == left[0]


def test_an_outage_is_bridged(postgres: Postgres, searching: Searching) -> None:
    events: list[Any] = []

    def cut_off(event: Any) -> None:
        events.append(event)
        if event.kind == "rung" and sum(one.kind == "rung" for one in events) == 2:
            postgres.stop()
        if event.kind == "note" and "does not answer" in event.text:
            postgres.start()

    study = searching(3, on_event=cut_off)
    assert [t.state for t in ended(study)] == [TrialState.COMPLETE] * 3
    assert len(study.trials) == 3
    (note,) = [one.text for one in events if one.kind == "note"]
    assert "waiting for up to 10 minutes, trainings go on" in note


def test_an_outage_that_lasts_ends_the_search_and_a_resumed_one_completes(
    postgres: Postgres, searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(event: Any) -> None:
        if event.kind == "rung" and event.number == 1:
            postgres.stop()

    monkeypatch.setattr(search.study.bridge, "PATIENCE", 0.0)
    with pytest.raises(AbsentError, match=r"did not answer for .*go on with `resume`"):
        searching(3, on_event=cut_off)
    postgres.start()
    study = searching(3)
    assert len(ended(study)) == 3 and not study.get_trials(states=(TrialState.RUNNING,))


def test_what_came_through_is_not_written_twice(
    postgres: Postgres, searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does what it is asked, and the connection is cut before it says so."""
    cuts = []

    def cut_after(name: str) -> None:
        plain, count = getattr(RDBStorage, name), 0

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            found, count = plain(self, *args, **kwargs), count + 1
            if count % 2:
                cuts.append(name)
                raise StorageInternalError from OperationalError("", None, OSError("cut"))
            return found

        monkeypatch.setattr(RDBStorage, name, call)

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    cut_after("_create_new_trial")
    cut_after("set_trial_state_values")
    study = searching(5)
    assert {*cuts} == {"_create_new_trial", "set_trial_state_values"} and len(cuts) > 8
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    assert len(ended(study)) == 5
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("nonsense", "is no address"),
        ("mysql://me:pass@h/db", "mysql is not known"),
        ("postgresql://me:pass@h", "names no database"),
    ],
)
def test_what_is_no_address_is_told_without_it(address: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem) as error:
        Server.new(address)
    assert "pass@" not in str(error.value)


def test_a_run_stays_where_it_is(
    space: Path,
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    fakes.run_fake(space, out, 1, fakes.FakePool())
    with pytest.raises(SpecError, match="the run's study is in its folder"):
        fakes.run_fake(space, out, 2, fakes.FakePool(), storage=URL)
    monkeypatch.setenv(VARIABLE, URL)
    assert len(ended(fakes.run_fake(space, out, 2, fakes.FakePool()))) == 2
    fakes.run_fake(space, tmp_path / "other", 1, fakes.FakePool(), storage="sqlite")
    assert (tmp_path / "other" / "study.db").is_file()


def test_a_server_that_was_emptied_is_told(
    postgres: Postgres, searching: Searching, tmp_path: Path
) -> None:
    searching(1)
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    record["storage"]["study"] = "archspec-gone"
    file.write_text(json.dumps(record))
    with pytest.raises(SpecError, match=r"127\.0\.0\.1:\d+/postgres: holds no search any more"):
        open_run(tmp_path / "run")


def test_a_server_is_looked_at_before_a_run(postgres: Postgres) -> None:
    found = check_cluster(storage=postgres.url)
    assert "PostgreSQL" in found.text() and "answers and locks" in found.text()
    assert not found.trouble and PASSWORD not in str(found.to_json())
    with pytest.raises(SpecError, match=r"dead\.example"):
        check_cluster(storage=URL)


def test_psycopg_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"needs psycopg.*archspec-seg\[cluster\]"):
        Server.new("postgresql://me@host/db")


def test_the_address_keeps_all_but_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # no server is asked
    server = Server.new("postgresql://me:se%40cret@h:5/db?password=x&sslmode=require&sslpassword=y")
    assert str(server) == "postgresql://me@h:5/db?sslmode=require"
    assert server.secrets == {"password": "se@cret", "sslpassword": "y"}
    assert "se@cret" not in repr(server)
    assert server.engine_options["connect_args"]["password"] == "se@cret"
    assert server.moved("postgresql://me@other/db").study == server.study
