"""A search that starts from the front of an earlier one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.launch
import search.study.run
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.write import report_json, write_report
from search.space.space import load_space
from search.study.ledger import ended
from search.study.loop import Event
from search.study.storage import open_run
from search.study.warm import taken_from


@pytest.fixture
def spaces(tmp_path: Path, space_tree: dict[str, Any]) -> Callable[..., Path]:
    def write(name: str, widths: list[int], **settings: Any) -> Path:
        first, second = space_tree["encoder"]["stages"]
        stages = [{**first, "width": {"choice": widths}}, second]
        section = {"steps": 9, "rungs": 1, "stopper": "none", **settings}
        path = tmp_path / f"{name}.yaml"
        tree = {**space_tree, "encoder": {"stages": stages}, "search": section}
        path.write_text(dump(tree), encoding="utf-8")
        return path

    return write


def by_width(task: Any, step: int) -> float:
    stages = task.tree["encoder"]["stages"]
    return 0.1 * float(stages[0]["width"]) - 0.05 * (stages[1]["mixer"]["kind"] == "conv")


def test_the_front_is_queued_and_trained_anew(
    spaces: Callable[..., Path],
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of six networks the three without a mixer are better and cheaper: 2, 3 and 4 wide."""
    pool = fakes.FakePool(dice=by_width)
    anchors = [{}, {"spec": "small-unet"}]
    first = tmp_path / "first"
    fakes.run_fake(spaces("first", [2, 3, 4], anchors=anchors), first, 7, pool)
    wider = spaces("wider", [2, 3, 4, 5, 6, 7], steps=27, anchors=[{"encoder.stages.0.width": 2}])
    taken = taken_from(first, load_space(wider))
    assert [one.params["encoder.stages.0.width"] for one in taken] == [2, 3, 4]
    assert {one.params["encoder.stages.1.mixer"] for one in taken} == {"identity"}

    dataset, again = fakes.fake_dataset(tmp_path / "preprocessed"), fakes.FakePool(dice=by_width)
    monkeypatch.setattr(search.launch, "find_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: again)
    events: list[Event] = []
    out = tmp_path / "second"
    options = {"data": 901, "out": out, "device": "cpu", "from_run": first}
    study = search.run(wider, trials=3, on_event=events.append, **options)
    assert events[0].text == "queued from an earlier front: 3 networks"
    assert study.trials[0].params["encoder.stages.1.mixer"] == "conv", "anchors go before"
    assert [trial.params for trial in study.trials[1:3]] == [one.params for one in taken[:2]]
    assert {task.rung_steps[-1] for task in again.tasks} == {27}, "by this run's own steps"
    study = search.run(wider, trials=5, resume=True, **options)
    assert study.trials[3].params == taken[2].params
    queued = [t.number for t in study.trials if "taken_from" in t.user_attrs]
    assert queued == [1, 2, 3] and len(ended(study)) == 5, "queued once"
    number = next(t.number for t in open_run(first)[0].trials if t.params == taken[0].params)
    assert study.trials[1].user_attrs["taken_from"] == f"{first}, trial {number}"
    rows = report_json(out)["trials"]
    assert [row["anchor"] for row in rows] == [True] + [False] * (len(study.trials) - 1)
    assert f"of {first}, trial {number}" in write_report(out)[-1].read_text(encoding="utf-8")


def test_a_run_of_another_space_or_without_a_front_is_refused(
    spaces: Callable[..., Path], tmp_path: Path, fakes: SimpleNamespace
) -> None:
    run = tmp_path / "run"
    fakes.run_fake(spaces("own", [2, 3, 4]), run, 6, fakes.FakePool(dice=by_width))
    other = load_space(spaces("other", [2, 3]))
    told = r"run: its trial \d has encoder.stages.0.width 4, which no hole of tiny takes"
    with pytest.raises(SpecError, match=told):
        taken_from(run, other)
    with pytest.raises(SpecError, match="not a run folder"):
        taken_from(tmp_path / "nothing", other)
