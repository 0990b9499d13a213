"""How a search stands, while it runs, when it was cut off, and at its end."""

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.retrain.confirm
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.status import Status, read_status
from search.report.write import report_json
from search.retrain.confirm import TABLE, confirm
from search.retrain.confirmation import RESULT
from search.retrain.retrain import sign_of_life
from search.study.session import read_sessions
from search.study.storage import GRACE

RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c" / "finished"


def after(folder: Path, seconds: float) -> datetime.datetime:
    """Return when so many seconds have passed since anything was written."""
    files = [folder / "study.db", *folder.glob("trials/*/metrics.jsonl")]
    written = max(file.stat().st_mtime for file in files)
    return datetime.datetime.fromtimestamp(written + seconds, datetime.UTC)


@pytest.fixture
def searched(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> tuple[Path, list[tuple[datetime.datetime, Status, Status]]]:
    """Search three networks; return the folder, and its status at each rung of the last."""
    space, out, seen = tmp_path / "space.yaml", tmp_path / "run", []
    space.write_text(dump(space_tree), encoding="utf-8")

    def look(event: Any) -> None:
        if event.kind == "rung" and event.number == 2:
            now = after(out, 20)
            cut = read_status(out, now=after(out, GRACE + 60))
            seen.append((now, read_status(out, now=now), cut))

    fakes.run_fake(space, out, 3, fakes.FakePool(), on_event=look)
    return out, seen


def test_a_running_search(searched: tuple[Path, list[Any]]) -> None:
    out, seen = searched
    now, found, cut = seen[1]
    assert (found.activity, found.asked, found.ended) == ("running", 3, 2)
    assert found.states["running"] == 1 and sum(found.states.values()) == 3
    (training,) = found.training
    assert (training.trial, training.step, found.steps) == (2, 3, 27)
    assert training.dice is not None and 0 < training.dice < 1
    assert found.silent == pytest.approx(20, abs=1e-3)
    started = datetime.datetime.fromisoformat(read_sessions(out)[0]["date"])
    assert found.left == pytest.approx((now - started).total_seconds() / 2)
    lines = found.text().splitlines()
    assert lines[0] == "tiny on Dataset901_X: running, last sign of life 20 s ago"
    assert lines[1].startswith("trials: 2 of 3 ended (")
    assert lines[2] == f"trial 2: 3 of 27 steps, Dice {training.dice:.3f}"
    assert lines[-1].startswith("time left: about ")
    assert cut.activity == "stands still" and cut.left is None
    assert "last sign of life 3.0 min ago" in cut.text() and "--resume goes on" in cut.text()


def test_a_search_that_has_ended(
    searched: tuple[Path, list[Any]], cli: Callable[..., tuple[int, str, str]]
) -> None:
    out, _ = searched
    code, text, _ = cli("status", out)
    assert code == 0 and "tiny on Dataset901_X: ended" in text
    assert "trials: 3 of 3 ended (" in text and f"archspec report {out}" in text
    code, text, _ = cli("status", out, "--json")
    found = json.loads(text)
    assert code == 0 and found["activity"] == "ended" and found["training"] == []
    rows = json.loads(cli("report", out, "--json")[1])
    front = [row for row in rows["trials"] if row["state"] == "front"]
    best = max(front, key=lambda row: row["dice"])
    cheapest = min(front, key=lambda row: row["gflops"])
    assert found["best"] == {
        "trial": best["trial"],
        "dice": best["dice"],
        "costs": {"gflops": best["gflops"]},
    }
    assert found["cheapest"]["flops"]["trial"] == cheapest["trial"]


def test_a_front_that_is_trained_again(
    searched: tuple[Path, list[Any]],
    fakes: SimpleNamespace,
    tmp_path: Path,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, _ = searched
    dataset = fakes.fake_dataset(tmp_path / "preprocessed", cases=5)
    monkeypatch.setattr(search.retrain.confirm, "find_dataset", lambda *_, **__: dataset)
    in_place_of_workers(scoring_pool(lambda *_: 0.5))
    seen: list[tuple[str, Status]] = []
    confirm(out, seeds=2, on_progress=lambda one: seen.append((one.text, read_status(out))))
    told = [found for text, found in seen if text == "trained and scored"]
    trainings = 2 * sum(state == "front" for state in states(out))
    counted = [(one.confirming.ended, one.confirming.trainings) for one in told if one.confirming]
    assert counted == [(ended, trainings) for ended in range(1, trainings + 1)]
    assert {found.activity for found in told} == {"confirming"}
    lines = told[0].text().splitlines()
    assert lines[0].startswith("tiny on Dataset901_X: confirming, last sign of life")
    assert lines[-1] == f"the front, trained again: 1 of {trainings} ended"
    assert read_status(out).activity == "ended"
    (out / RESULT).unlink()  # as when it was killed
    assert read_status(out).activity == "confirming"
    lock = sign_of_life(out / TABLE)
    silent = datetime.datetime.fromtimestamp(lock.stat().st_mtime + GRACE + 1, datetime.UTC)
    assert read_status(out, now=silent).activity == "ended"


def states(run: Path) -> list[str]:
    return [trial["state"] for trial in report_json(run)["trials"]]


def test_a_run_of_an_earlier_release(tmp_path: Path) -> None:
    shutil.copytree(RELEASE, tmp_path / "run")
    found = read_status(tmp_path / "run")
    assert found.asked is None and found.ended > 0 and found.best is not None
    assert f"trials: {found.ended} ended (" in found.text()
    with pytest.raises(SpecError, match="not a run folder"):
        read_status(tmp_path)
