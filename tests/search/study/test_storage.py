"""Reading a run while its search starts: neither breaks the other."""

import json
import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from blocks.base import SpecError
from search.study.storage import STUDY, open_run, open_storage, quiet

ROUNDS = 4


def create(folder: Path) -> None:
    """Do to the storage what a search does when it starts."""
    with quiet():
        optuna.create_study(
            study_name=STUDY,
            storage=open_storage(folder, create=True),
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )


def in_a_process(work: Callable[[], None], log: Path) -> int:
    """Start the work in a process of its own; what goes wrong there is in the log."""
    child = os.fork()
    if child:
        return child
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", slowly)
    try:
        work()
        os._exit(0)
    except BaseException:
        log.write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)


def slowly(*_: object) -> None:
    """Take as long before a statement as a network drive does."""
    time.sleep(0.003)


def read_until_there(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            study, _ = open_run(folder)
        except SpecError as error:
            assert "nothing to read yet" in str(error)
            time.sleep(0.01)
        else:
            assert study.trials == []
            return
    raise AssertionError("the study never came")


def test_readers_and_a_starting_search_do_not_meet(tmp_path: Path) -> None:
    """With tables made by whoever comes first, 16 of 20 such rounds failed."""
    for number in range(ROUNDS):
        folder, logs = tmp_path / f"run{number}", [tmp_path / f"{number}-{i}.log" for i in range(3)]
        folder.mkdir()
        (folder / "run.json").write_text("{}", encoding="utf-8")
        readers = [in_a_process(partial(read_until_there, folder), log) for log in logs[:2]]
        writer = in_a_process(partial(create, folder), logs[2])
        for child in (*readers, writer):
            os.waitpid(child, 0)
        failures = [log.read_text(encoding="utf-8")[-1500:] for log in logs if log.is_file()]
        assert not failures, failures[0]


def test_a_folder_without_a_study_is_told_from_one_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not a run folder"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"seed": 3}), encoding="utf-8")
    with pytest.raises(SpecError, match=r"nothing to read yet.*--resume"):
        open_run(tmp_path)
    assert not (tmp_path / "study.db").exists(), "reading makes no file"
    (tmp_path / "study.db").touch()  # as SQLite leaves it before the first table
    with pytest.raises(SpecError, match="nothing to read yet"):
        open_run(tmp_path)
    assert (tmp_path / "study.db").stat().st_size == 0, "reading makes no table"
    create(tmp_path)
    assert open_run(tmp_path)[1].to_json() == {"seed": 3}


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "study.db").write_text("what is this" * 100, encoding="utf-8")
    with pytest.raises(SpecError, match=r"study\.db: damaged: file is not a database"):
        open_run(tmp_path)
