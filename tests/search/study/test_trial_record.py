"""Why a trial ended, as data; what is kept of it, and what a later release kept of it too."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.space.limits import Excess
from search.study.end import End
from search.study.ledger import ended
from search.study.loop import SearchLoop
from search.study.recovery import recover
from search.study.trial_record import JudgedRung, TrialRecord, end_of, write
from search.trials.worker import Message

ROOT = Path(__file__).parents[3]
RUNG = {"step": 3, "scores": {"mean": 0.5}, "loss": 1.0, "seconds": 2.0, "smoothed": 0.4}
RUNG |= {"waited": None, "stop": False}
LATER = {"anchor_spec": "unet", "watts": [3, 4], "note": None}
"""Attributes that the record does not know."""

MakeLoop = Callable[..., SearchLoop]


class StopsOne:
    """A stopper that stops one trial at its first rung."""

    def __init__(self, number: int) -> None:
        self.number = number

    def decide(self, rung: int, dice: float, costs: tuple[float, ...], trial: int) -> bool:
        return trial != self.number

    def remember(self, rung: int, dice: float, costs: tuple[float, ...], trial: int) -> None:
        pass


def test_every_way_to_end_is_written(
    study: optuna.Study, make_loop: MakeLoop, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    mixer = {"kind": "attention", "num_heads": {"choice": [1, 4]}}
    first = {"width": {"choice": [4, 6, 8, 60]}, "mixer": mixer}
    tree = {**space_tree, "encoder": {"stages": [first]}}
    tree["search"] = {"steps": 9, "rungs": 2, "limits": {"params": 5_000}}
    draws = [
        ((4, 1), End.COMPLETED),
        ((6, 1), End.STOPPED),
        ((8, 1), End.FAILED),
        ((4, 4), End.LOST),
        ((60, 1), End.OVER_LIMIT),
        ((6, 4), End.INVALID),
        ((4, 1), End.REPEATED),
    ]
    ends = [end for _, end in draws]
    assert set(ends) == set(End)
    names = ("encoder.stages.0.width", "encoder.stages.0.mixer.num_heads")
    for values, _ in draws:
        study.enqueue_trial(dict(zip(names, values, strict=True)))
    fate = {
        2: Message(2, "failed", reason="loss is nan"),
        3: Message(3, "lost", reason="code -9"),
    }
    loop = make_loop(study, 4, tree)
    loop.stopper = StopsOne(1)
    loop.drive(fakes.FakePool(fate=fate))
    trials = study.trials
    assert [end_of(trial) for trial in trials[:7]] == ends
    written = [trial.user_attrs.get("end") for trial in trials[:7]]
    assert written == [None, *(end.value for end in ends[1:])]
    (over,) = TrialRecord.of(trials[4]).over
    assert (over.name, over.limit, over.value) == ("params", 5000, trials[4].user_attrs["params"])
    assert trials[4].user_attrs["rejected"] == over.text
    assert TrialRecord.of(trials[6]).twin == 0
    assert [trial.number for trial in ended(study)] == [0, 1, 2, 7], "trial 7 goes on with 3"
    assert TrialRecord.of(trials[7]).resumed_from == 3


@pytest.mark.parametrize(
    ("left", "state", "end"),
    [
        ({}, TrialState.FAIL, End.LOST),
        ({"lost": "code -9"}, TrialState.FAIL, End.LOST),
        ({"end": "completed"}, TrialState.FAIL, End.LOST),
        ({"reason": "loss is nan"}, TrialState.FAIL, End.FAILED),
        ({"rejected": "invalid: stages"}, TrialState.PRUNED, End.INVALID),
        ({"rejected": "same network and recipe as trial 1"}, TrialState.PRUNED, End.REPEATED),
        ({"rungs": [{**RUNG, "stop": True}]}, TrialState.PRUNED, End.STOPPED),
        ({"end": "over_limit"}, TrialState.PRUNED, End.OVER_LIMIT),
    ],
)
def test_a_kill_between_why_and_that_a_trial_ended_keeps_why(
    study: optuna.Study, left: dict[str, Any], state: TrialState, end: End
) -> None:
    trial = study.ask()
    for name, value in left.items():
        trial.set_user_attr(name, value)
    assert end_of(study.trials[0]) is None, "it runs"
    recover(study)
    found, *heirs = study.trials
    assert (found.state, end_of(found), found.user_attrs["end"]) == (state, end, end.value)
    assert [TrialRecord.of(heir).resumed_from for heir in heirs] == [0] * (end is End.LOST)


@pytest.mark.parametrize(
    ("state", "attributes", "end"),
    [
        (TrialState.WAITING, {}, None),
        (TrialState.FAIL, {"end": "stopped"}, End.LOST),
        (TrialState.FAIL, {"end": "of a later release", "reason": "loss is nan"}, End.FAILED),
        (TrialState.PRUNED, {"end": "of a later release", "rejected": "dull"}, End.REPEATED),
        (TrialState.PRUNED, {"end": "failed"}, End.REPEATED),
    ],
)
def test_the_state_comes_first_and_an_unknown_end_is_none(
    state: TrialState, attributes: dict[str, Any], end: End | None
) -> None:
    assert end_of(create_trial(state=state, user_attrs=attributes)) == end


def known() -> TrialRecord:
    return TrialRecord(
        seed=5,
        flops=10,
        rungs=(JudgedRung(3, {"mean": 0.5}, 1.0, 2.0, 0.4, None, True, {"watts": 5}),),
        scores={"mean": 0.5},
        resumed_from=0,
        over=(Excess("params", 10, 5), Excess("memory", 2e9, "1 GB")),
        end=End.OVER_LIMIT,
        other=LATER,
    )


def test_attributes_are_read_as_they_were_written() -> None:
    attributes = known().attributes()
    assert attributes["rungs"] == [{**RUNG, "stop": True, "watts": 5}]
    assert attributes["note"] is None and "macs" not in attributes
    trial = create_trial(state=TrialState.PRUNED, user_attrs=attributes)
    assert TrialRecord.of(trial) == known()
    assert TrialRecord.of(trial).attributes() == attributes


def test_writing_leaves_what_it_does_not_name(study: optuna.Study) -> None:
    trial = study.ask()
    write(trial, known())
    write(trial, TrialRecord(reason="loss is nan", end=End.FAILED))
    expected = {**known().attributes(), "reason": "loss is nan", "end": "failed"}
    assert study.trials[0].user_attrs == expected


def lost(study: optuna.Study) -> FrozenTrial:
    """Return the trial that goes on with one that a later release's search left behind."""
    trial = study.ask()
    write(trial, TrialRecord(seed=5, flops=10, other=LATER))
    trial.set_user_attr("rungs", [{**RUNG, "watts": 5}])
    recover(study)
    return study.trials[1]


def test_what_is_unknown_stays_when_a_lost_trial_is_queued_again(study: optuna.Study) -> None:
    heir = lost(study)
    expected = {"seed": 5, "rungs": [{**RUNG, "watts": 5}], "resumed_from": 0, "origin": 0}
    assert heir.user_attrs == {**expected, **LATER}
    trial = study.ask()
    record = TrialRecord.of(trial)
    write(trial, TrialRecord(rungs=(*record.rungs, JudgedRung(9, {"mean": 0.6}))))
    assert [rung.get("watts") for rung in study.trials[1].user_attrs["rungs"]] == [5, None]
    recover(study)
    again = study.trials[2].user_attrs
    assert {name: again[name] for name in LATER} == LATER
    assert (again["resumed_from"], again["origin"], len(again["rungs"])) == (1, 0, 2)


PLACES = {
    "search/study/trial_record.py": {"user_attrs", "set_user_attr"},
    "search/study/storage.py": {"set_trial_user_attr"},
    "search/space/references.py": {"user_attrs", "set_user_attr"},
    "search/study/generators.py": {"user_attrs", "set_user_attr"},
}
"""Where attributes are read and written; a space knows its own one, and a sampler the study's one,
by a constant."""
_WORDS = set().union(*PLACES.values())


def uses(path: Path) -> Iterator[str]:
    """Yield what a file reads or writes user attributes by, and the names it queues them by."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in _WORDS:
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg == "user_attrs":
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
            yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))


def literals(path: Path) -> Iterator[str]:
    """Yield the attributes that a file names where it reads or writes one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and _is_attributes(node.value):
            named = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "set_user_attr" or _is_attributes(node.func.value):
                named = node.args[:1]
        elif isinstance(node, ast.Compare) and any(map(_is_attributes, node.comparators)):
            named = [node.left]
        yield from (str(one.value) for one in named if isinstance(one, ast.Constant))


def _is_attributes(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "user_attrs"


def found_in(root: Path) -> dict[str, set[str]]:
    files = [path for package in ("archspec", "search") for path in (root / package).rglob("*.py")]
    found = {path.relative_to(root).as_posix(): set(uses(path)) for path in files}
    return {name: words for name, words in found.items() if words}


def test_attributes_of_trials_are_named_in_one_file() -> None:
    assert found_in(ROOT) == PLACES
    assert not list(literals(ROOT / "search/space/references.py"))


def test_a_name_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    file = tmp_path / "search" / "loop.py"
    file.write_text(
        'if "a" in trial.user_attrs and trial.user_attrs["b"] == trial.user_attrs.get("c"):\n'
        '    trial.set_user_attr("d", 1)\n'
        'study.enqueue_trial({}, user_attrs={"e": 1})\n'
    )
    assert found_in(tmp_path) == {"search/loop.py": {"user_attrs", "set_user_attr", "e"}}
    assert set(literals(file)) == set("abcd")
