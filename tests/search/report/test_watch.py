"""The report of a search that runs, in a process that stops for a look now and then."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.report.watch
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.status import Status
from search.report.watch import watch_report
from search.retrain.confirm import TABLE
from search.retrain.retrain import sign_of_life

RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c"
UNENDED = "The search had not ended when this page was written: 1 of its trials trained still."


class EndOfTestError(Exception):
    """What a search is left by in the middle."""


@pytest.fixture
def left(tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]) -> Path:
    """Return the folder of a search of three, left while its second network trained."""
    space = tmp_path / "space.yaml"
    space.write_text(dump(space_tree), encoding="utf-8")

    def leave(event: Any) -> None:
        if event.kind == "rung" and event.number == 1:
            raise EndOfTestError

    with pytest.raises(EndOfTestError):
        fakes.run_fake(space, tmp_path / "run", 3, fakes.FakePool(), on_event=leave)
    return tmp_path / "run"


def test_the_page_follows_a_search_and_its_confirmation(left: Path, fakes: SimpleNamespace) -> None:
    page, lock = left / "report.html", sign_of_life(left / TABLE)
    news: list[Status] = []
    looks = 0

    def pause() -> None:
        nonlocal looks
        looks += 1
        told = page.read_text(encoding="utf-8")
        if looks == 1:
            assert UNENDED in told
            fakes.run_fake(left.parent / "space.yaml", left, 3, fakes.FakePool())
        elif looks == 2:
            assert UNENDED not in told and told.count("<details id=") > 2
            lock.parent.mkdir()
            lock.touch()  # as a confirmation does that begins
        elif looks == 3:
            lock.unlink()
        assert looks < 5, "it has ended"

    files = watch_report(left, on_news=news.append, pause=pause)
    assert page in files and looks == 4
    assert [one.activity for one in news] == ["running", "ended", "confirming", "ended"]
    assert [one.ended for one in news[:2]] == [1, 3]
    assert news[0].headline() == "running: trials: 1 of 3 ended"
    assert news[2].headline() == "confirming: 0 of 0 trainings ended"


def test_a_search_that_ended_long_ago_is_not_waited_for(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    run = shutil.copytree(RELEASE / "finished", tmp_path / "run")
    for file in (run / "study.db", *run.glob("trials/*/metrics.jsonl")):
        os.utime(file, (0, 0))
    code, out, err = cli("report", run, "--watch")
    assert code == 0 and f"wrote {run / 'report.html'} (" in out
    assert err.count("\n") == 1 and err.endswith(f"; wrote {run / 'report.html'}\n")
    assert cli("report", run, "--watch", "--json")[0] == 2
    with pytest.raises(SpecError, match="not a run folder"):
        watch_report(tmp_path)


def test_ctrl_c_leaves_the_last_page(
    left: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = search.report.watch.time
    monkeypatch.setattr(looked, "sleep", lambda _: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = cli("report", left, "--watch")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "stopped; the report stands as it was last written"
    assert UNENDED in (left / "report.html").read_text(encoding="utf-8")
