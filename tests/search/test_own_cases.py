"""Searches on cases of the user's own: what they are told, keep and refuse."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import search
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.launch import in_hours
from search.report.write import best_trial, write_report
from search.retrain.confirm import confirm
from search.study.storage import open_run
from search.study.task import SearchTask
from search.trials.own import own_cases

SPACE: dict[str, Any] = {
    "name": "squares-space",
    "patch_size": [8, 8],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 3]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"kind": "conv"}},
        ]
    },
    "decoder": {"kind": "concat"},
    "deep_supervision": {"heads": {"choice": [1, 2]}},
    "search": {"steps": 4, "rungs": 2, "stopper": "none", "batch_size": 7},
}


@pytest.fixture
def squares(imported: Callable[[Path], Any]) -> type[Any]:
    found: type[Any] = imported(Path(__file__).with_name("own_cases.py")).Squares
    return found


@pytest.fixture
def launch(tmp_path: Path, in_this_process: None) -> Callable[..., Any]:
    """Return a function that searches on given cases, trained in this process."""
    (tmp_path / "space.yaml").write_text(dump(SPACE), encoding="utf-8")

    def run(cases: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        out = tmp_path / "run"
        options = {"trials": 2, "out": out, "device": "cpu", **options}
        study = search.run(tmp_path / "space.yaml", cases=cases, **options)
        return study, json.loads((out / "run.json").read_text(encoding="utf-8"))

    return run


def test_a_search_a_report_and_the_front_again(
    launch: Callable[..., Any], squares: type[Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    made = functools.partial(squares, tests=2, fingerprint="v1")
    study, record = launch(made, confirm_seeds=1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert all(0 <= trial.values[0] <= 1 for trial in study.trials)
    assert record["dataset"] == "squares" and record["configuration"] == ""
    assert record["test_cases"] == ["t0", "t1"]
    assert record["settings"]["batch_size"] == 2, "the cases have theirs"
    assert record["cases"] == {
        "in_channels": 1,
        "num_classes": 2,
        "patch_size": [8, 8],
        "spacing": None,
        "batch_size": 2,
        "classes": ["square"],
        "validation": ["v0", "v1"],
        "fingerprint": "v1",
    }
    page = next(file for file in write_report(folder) if file.suffix == ".html")
    text = page.read_text(encoding="utf-8")
    assert "on squares (own cases)</h1>" in text and "fingerprint v1" in text
    assert best_trial(folder).spec.name.startswith("squares-space-")
    confirmed = json.loads((folder / "confirmed.json").read_text(encoding="utf-8"))
    assert confirmed["num_cases"] == {"validation": 2, "test": 2}

    with pytest.raises(SpecError, match=r"own cases, squares, .* again; search.run with `cases`"):
        confirm(folder)
    with pytest.raises(SpecError, match="the cases are not those of the run"):
        confirm(folder, cases=own_cases(squares()))
    with pytest.raises(SpecError, match=r"test_cases, cases\.fingerprint differ"):
        launch(squares(fingerprint="v2"), resume=True)
    assert len(launch(made, trials=3, confirm_seeds=0, resume=True)[0].trials) == 3
    assert open_run(folder)[1].to_json() == record, "it reads as it was written"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"patch_size": (8,)},
            r"cases: patch_size: is \[8\]; allowed: 2 or 3 sizes in voxels",
        ),
        ({"in_channels": True}, "cases: in_channels: is true"),
        ({"classes": "square"}, "cases: classes: is 'square'"),
        ({"name": None}, "cases: name: is missing"),
        ({"validation_cases": []}, r"cases: validation_cases: is \[\]"),
        ({"validation_cases": ["a"], "test_cases": ["a"]}, "cases: 'a' validates and tests"),
        ({"spacing": (1.0,)}, r"cases: spacing: is \[1\.0\]"),
        ({"score": None}, "cases: have no method score"),
        ({"loader": lambda: None}, "cases: cannot be sent to the processes that train"),
    ],
)
def test_cases_that_are_none(squares: type[Any], changes: dict[str, Any], told: str) -> None:
    cases = squares()
    for name, value in changes.items():
        setattr(cases, name, value)
    with pytest.raises(SpecError, match=told):
        own_cases(cases)


def test_cases_of_an_interactive_session(
    squares: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = type("Typed", (squares,), {"__module__": "__main__", "__qualname__": "Typed"})
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "Typed", typed, raising=False)
    monkeypatch.setattr(main, "__file__", __file__, raising=False)
    assert own_cases(typed).name == "squares"
    monkeypatch.setattr(main, "__file__", "<stdin>")
    for given in (typed, typed(), functools.partial(typed, tests=1)):
        with pytest.raises(SpecError, match="cases: are of an interactive session"):
            own_cases(given)


def test_what_cases_decide_is_not_asked_for(
    launch: Callable[..., Any], squares: type[Any], tmp_path: Path
) -> None:
    refused: dict[str, dict[str, Any]] = {
        "`batch_size` is not for `cases`": {"batch_size": 2},
        "`fold` is not for `cases`": {"fold": 1},
        "`test_share` is not for `cases`": {"test_share": 0.2},
        "`data` is not for `cases`": {"data": 4},
        "the cases have patches of": {"patch_size": (16, 16)},
        "the cases have no spacing": {"stages_from_dataset": True},
        "the cases name their test part": {"overrides": ["search.test_share=0.2"]},
        "'circle' is no class of squares": {
            "overrides": ["search.objectives=[{dice: {class: circle}}, flops]"]
        },
        "nnU-Net did not plan these data": {"overrides": ["search.anchors=[{plans: nnUNetPlans}]"]},
    }
    for told, options in refused.items():
        with pytest.raises(SpecError, match=told):
            launch(squares(), **options)
    with pytest.raises(SpecError, match="int is neither cases nor a function"):
        launch(3)
    with pytest.raises(SpecError, match="give `data` or `cases`"):
        launch(None)
    assert not (tmp_path / "run").exists()


def test_hours_are_planned_for_own_cases(squares: type[Any], tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(dump(SPACE), encoding="utf-8")
    task = SearchTask(search.load_space(space), own_cases(squares(tests=1)), tmp_path, 0)
    timed, found = in_hours(task, 0.01, seconds_per_step=1.0)
    assert timed.trials == found.trials > 1
    assert found.speed.num_cases == 2 and not found.speed.validation
