"""Whoever looks on sees trainings move, and nothing else changes by it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import search.study.run
from archspec.spec.yaml_file import dump
from search.retrain.retrain import Retraining, retrain
from search.space.space import load_space
from search.study.storage import open_run
from search.study.task import SearchTask
from search.trials.engine import Beating
from search.trials.host import TrainingHost
from search.trials.moves import Move
from search.trials.own import own_cases
from search.trials.pool import WorkerPool
from search.trials.train import CHECKPOINT, METRICS
from search.trials.worker import Message, WorkerSettings

SPACE: dict[str, Any] = {
    "name": "squares-space",
    "patch_size": [8, 8],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 3]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"kind": "conv"}},
        ]
    },
    "decoder": {"kind": "sum"},
    "deep_supervision": {"heads": 1},
    "search": {"steps": 6, "rungs": 2, "stopper": "none"},
}

Look = Callable[..., tuple[Path, list[tuple[Move, ...]]]]


@pytest.fixture
def data(imported: Callable[[Path], Any]) -> Any:
    return own_cases(imported(Path(__file__).parents[1] / "own_cases.py").Squares())


@pytest.fixture
def searched(tmp_path: Path, data: Any, in_this_process: None) -> Look:
    """Return a function that searches here; it gives the run folder, and what was looked at."""
    path = tmp_path / "space.yaml"
    path.write_text(dump(SPACE), encoding="utf-8")

    def run(name: str, *, watched: bool) -> tuple[Path, list[tuple[Move, ...]]]:
        seen: list[Sequence[Move]] = []
        host = TrainingHost(seed=3, on_moves=seen.append if watched else None)
        task = SearchTask(load_space(path), data, tmp_path / name, 1, host)
        search.study.run.run(task)
        return task.folder, [tuple(moves) for moves in seen]

    return run


def test_a_search_moves_step_by_step_and_nothing_changes_by_it(searched: Look) -> None:
    """What was recorded and the weights, to the last bit; no attribute or file is added."""
    (watched, seen), (alone, none) = searched("run", watched=True), searched("alone", watched=False)
    moved = [move for moves in seen for move in moves]
    assert [move.step for move in moved] == [None, 0, 1, 2, 2, 3, 4, 5, 6, 6]
    assert {(move.name, move.steps) for move in moved} == {("trial 0", 6)}
    assert moved[1].loss is None and all(move.loss is not None for move in moved[2:])
    assert [moved[4].dice, moved[-1].dice] == _dice(watched)
    assert moved[3].dice is None and moved[5].dice == moved[4].dice, "the last one stays"
    assert seen[-1] == () and none == []
    files = [sorted(p.relative_to(one) for p in one.rglob("*")) for one in (watched, alone)]
    assert files[0] == files[1]
    one, other = (open_run(folder)[0].trials[0] for folder in (watched, alone))
    assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
    assert one.user_attrs.keys() == other.user_attrs.keys()
    assert one.system_attrs.keys() == other.system_attrs.keys()
    nets = [
        torch.load(folder / "trials" / "0000" / CHECKPOINT, weights_only=True)["net"]
        for folder in (watched, alone)
    ]
    assert nets[0].keys() == nets[1].keys()
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


def test_trainings_have_their_own_names(
    tmp_path: Path, data: Any, scoring_pool: Callable[..., Any]
) -> None:
    seen: list[Sequence[Move]] = []
    tree = {name: part for name, part in SPACE.items() if name != "search"}
    tree["encoder"] = {"stages": [{"width": 4, "mixer": {"kind": "conv"}}] * 2}
    pool = scoring_pool(lambda task, part, index: 0.5)
    retrain(
        [Retraining("without attention", tree, 7)],
        table=tmp_path / "table.jsonl",
        settings=WorkerSettings(data, 0, 2, 1),
        rung_steps=(2, 4),
        devices=("cpu",),
        on_moves=seen.append,
        make_engine=lambda settings, devices: pool,
    )
    moved = [move for moves in seen for move in moves]
    assert {move.name for move in moved} == {"without attention, seed 7"}
    assert [move.step for move in moved] == [None, 2, 4] and seen[-1] == ()


@pytest.mark.parametrize("event", ["failed", "lost"])
def test_what_ends_is_no_longer_shown_and_an_engine_needs_no_beats(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any], event: Any
) -> None:
    """An engine without them, as on other machines, is watched from rung to rung."""
    path = tmp_path / "space.yaml"
    tree = {**space_tree, "search": {**space_tree["search"], "stopper": "none"}}
    path.write_text(dump(tree), encoding="utf-8")
    pool = fakes.FakePool(jobs=2, fate={1: Message(1, event, reason="a reason")})
    assert not isinstance(pool, Beating) and issubclass(WorkerPool, Beating)
    seen: list[Sequence[Move]] = []
    fakes.run_fake(path, tmp_path / "run", 3, pool, on_moves=seen.append)
    names = [[move.name for move in moves] for moves in seen]
    assert ["trial 0", "trial 1"] in names and names[-1] == []
    after = names[names.index(["trial 0", "trial 1"]) + 1 :]
    assert not any("trial 1" in row for row in after[2:])
    rows = [move for moves in seen for move in moves if move.name == "trial 0"]
    assert {move.step for move in rows} == {None, *pool.tasks[0].rung_steps}


def _dice(folder: Path) -> list[float]:
    """Return the Dice of the rungs, as the trial wrote them."""
    lines = (folder / "trials" / "0000" / METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["smoothed"] for line in lines]
