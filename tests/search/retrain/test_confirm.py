"""Confirming a front with trainings that cost nothing: what is trained, kept, counted and said."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import search.retrain.confirm
from archspec.nnunet.splits import split_cases
from archspec.scoring.statistics import hierarchical_bootstrap
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.report.write import write_report
from search.retrain.confirm import TABLE, confirm
from search.retrain.confirmation import RESULT, Confirmation
from search.retrain.retrain import read_trained
from search.trials.engine import PLACE_LOSSES
from search.trials.train import TrialTask
from search.trials.worker import Message

CASES = [f"case_{number}" for number in range(20)]
TREE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 3, 4]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"choice": [{"kind": "conv"}, {"kind": "identity"}]}},
        ]
    },
    "decoder": {"kind": "sum"},
}
Confirm = Callable[..., dict[str, Any]]
MakePool = Callable[..., Any]


def width_of(task: TrialTask) -> int:
    width: int = task.tree["encoder"]["stages"][0]["width"]
    return width


def searched(task: TrialTask, step: int) -> float:
    """Return what the search saw: wider is better, and a mixer better than none."""
    mixes = task.tree["encoder"]["stages"][1]["mixer"]["kind"] == "conv"
    return 0.5 + 0.1 * width_of(task) + 0.01 * mixes


def scored(task: TrialTask, part: str, index: int) -> float:
    """Return a case's Dice: lower than in the search, width 3 and 4 alike, some noise."""
    noise = 0.002 * math.sin(7 * index) + 0.003 * math.sin(task.seed)
    return 0.4 + 0.1 * min(width_of(task), 3) - (0.05 if part == "test" else 0) + noise


@pytest.fixture
def pool_class(scoring_pool: type) -> MakePool:
    """Return a function that makes a fake pool which scores cases as above."""
    return partial(scoring_pool, scored)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """Return a folder with a run of all six networks, with test cases, and its dataset."""
    return make_run(tmp_path_factory.mktemp("made"), fakes, test_share=0.3).parent


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the run; widths 2, 3 and 4 are on its front."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def make_run(folder: Path, fakes: SimpleNamespace, *, test_share: float, trials: int = 6) -> Path:
    space, out = folder / "space.yaml", folder / "run"
    settings = {"steps": 27, "test_share": test_share, "stopper": "none"}
    space.write_text(dump({**TREE, "search": settings}), encoding="utf-8")
    data = folder / "preprocessed"
    fakes.fake_dataset(data, cases=len(CASES))
    folds = [{"train": CASES[4:], "val": CASES[:4]}]
    (data / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    fakes.run_fake(space, out, trials, fakes.FakePool(dice=searched))
    return out


@pytest.fixture
def confirm_with(
    tmp_path: Path,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    in_place_of_workers: Callable[[Any], None],
) -> Confirm:
    """Return a function that confirms a run with a fake pool."""

    def call(run: Path, pool: Any, **options: Any) -> dict[str, Any]:
        dataset = fakes.fake_dataset(tmp_path / "preprocessed")
        monkeypatch.setattr(search.retrain.confirm, "find_dataset", lambda *_, **__: dataset)
        in_place_of_workers(pool)
        return confirm(run, **options).to_json()

    return call


def test_every_point_is_trained_with_seeds_of_its_own_to_the_end(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    pool = pool_class(jobs=2)
    found = confirm_with(run, pool, seeds=3)
    points = found["points"]
    assert len({point["trial"] for point in points}) == len(points) >= 3
    assert len(pool.tasks) == 3 * len(points)
    assert {task.rung_steps[-1] for task in pool.tasks} == {27} == {found["steps"]}
    assert len({task.seed for task in pool.tasks}) == 3
    assert all(task.average for task in pool.tasks), "as the search scored them"
    assert min(task.seed for task in pool.tasks) > 1e6, "not the search's seeds"
    assert json.loads((run / RESULT).read_text(encoding="utf-8")) == found


def test_differences_count_persons_where_the_run_knows_them(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    """Six test cases of two persons, one of whom has five."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    first, *others = record["test_cases"]
    persons = dict.fromkeys(CASES, "else") | dict.fromkeys(others, "a") | {first: "b"}
    (run / "run.json").write_text(json.dumps({**record, "persons": persons}), encoding="utf-8")
    found = confirm_with(run, pool_class(), seeds=3)
    assert (found["num_cases"]["test"], found["num_persons"]) == (6, 2)
    rows = read_trained(run / TABLE)
    for one in found["differences"]:
        sides = [[row for row in rows if row.name == name] for name in (one["a"], one["b"])]
        values = [
            np.array(
                [
                    [np.mean([row.test[case]["mean"] for case in own]) for own in (others, [first])]
                    for row in side
                ]
            )
            for side in sides
        ]
        want = hierarchical_bootstrap(*values, record["seed"], draws=4000)
        assert (one["mean"], one["low"], one["high"]) == pytest.approx(tuple(want))
    told = Confirmation.from_json(found)
    assert "Neighbours along the front, on test cases of 2 persons:" in told.text()
    write_report(run)
    assert "seeds and 2 persons, paired by person" in (run / "report.html").read_text("utf-8")


def test_the_figures_are_those_of_the_trainings(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    pool = pool_class()
    found = confirm_with(run, pool, seeds=3)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert found["test_cases"] == record["test_cases"]
    assert found["num_cases"] == {"validation": 4, "test": 6}
    assert found["compared_on"] == "test"
    best = found["points"][-1]
    tasks = [task for task in pool.tasks if width_of(task) == 4]
    tasks = [t for t in tasks if t.tree["encoder"]["stages"][1]["mixer"]["kind"] == "conv"]
    means = [sum(scored(task, "test", i) for i in range(6)) / 6 for task in tasks]
    assert best["test"]["seeds"] == pytest.approx(means)
    assert best["test"]["mean"] == pytest.approx(sum(means) / 3)
    spread = math.sqrt(sum((m - sum(means) / 3) ** 2 for m in means) / 2)
    assert best["test"]["sd"] == pytest.approx(spread)
    assert best["searched"] == pytest.approx(0.91)
    assert best["drop"] == pytest.approx(0.91 - sum(means) / 3)
    assert best["drop"] == pytest.approx(best["drop_by_seed"] + best["drop_by_cases"])


def test_neighbours_that_are_alike_are_within_noise(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    """Widths 3 and 4 are alike on the test cases, though the search saw 0.1 between them."""
    found = confirm_with(run, pool_class(), seeds=3)
    points = {f"trial {point['trial']}": point for point in found["points"]}
    assert len(found["differences"]) == len(points) - 1
    verdicts = []
    for one in found["differences"]:
        gap = points[one["a"]]["test"]["mean"] - points[one["b"]]["test"]["mean"]
        assert one["mean"] == pytest.approx(gap)
        assert one["p_holm"] >= one["p"]
        assert one["exceeds_noise"] == (gap > 0.05)
        verdicts.append(one["exceeds_noise"])
    assert set(verdicts) == {True, False}


def test_a_finished_training_is_never_repeated(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    first = confirm_with(run, pool_class(), seeds=2)
    again = pool_class()
    assert confirm_with(run, again, seeds=2) == first
    assert again.tasks == []
    confirm_with(run, again, seeds=3)
    assert len(again.tasks) == len(first["points"])


def test_a_kill_loses_no_training_that_has_a_line(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    class Killed(BaseException):
        pass

    done = []

    def kill(progress: Any) -> None:
        done.append(progress.text)
        if done.count("trained and scored") == 4:
            raise Killed

    with pytest.raises(Killed):
        confirm_with(run, pool_class(), seeds=3, on_progress=kill)
    table = run / TABLE
    assert len(read_trained(table)) == 4
    table.write_bytes(table.read_bytes()[:-40])  # as if the kill came while the line was written
    kept = read_trained(table)
    assert len(kept) == 3
    pool = pool_class()
    found = confirm_with(run, pool, seeds=3)
    assert len(pool.tasks) == 3 * len(found["points"]) - 3
    assert len(read_trained(table)) == 3 * len(found["points"])
    assert read_trained(table)[:3] == kept
    # the one whose line was cut off had its checkpoint: scored again, not trained again
    assert len(pool.trained) == (len(pool.tasks) - 1) * len(pool.tasks[0].rung_steps)


def test_a_worker_that_dies_is_replaced_once_and_a_failure_is_told(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    told: list[str] = []
    fate = {0: Message(0, "lost", reason="code -9"), 1: Message(1, "failed", reason="loss is nan")}
    found = confirm_with(
        run, pool_class(fate=fate), seeds=2, on_progress=lambda p: told.append(p.text)
    )
    assert told.count("code -9; tried again") == 1
    assert sorted(found["failed"].values()) == ["code -9", "loss is nan"]
    assert found["points"][0]["test"] == {"mean": None, "sd": None, "seeds": []}
    assert "loss is nan" in Confirmation.from_json(found).text()
    pool = pool_class()
    assert confirm_with(run, pool, seeds=2)["failed"] == {}
    assert len(pool.tasks) == 2, "the next call tries again what failed"


def test_a_place_that_is_gone_costs_a_training_its_folder_alone(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    """What it has trained stands elsewhere: the place may be out of reach only, and write on."""
    pool, folders = pool_class(), []
    submit, messages = pool.submit, pool.messages

    def submitted(task: TrialTask) -> None:
        if task.number == 0:
            folders.append(task.folder)
            assert [folder.exists() for folder in folders] == [False] * (len(folders) - 1) + [True]
        submit(task)

    def lost_after_a_rung() -> Iterator[Message]:
        for message in messages():
            yield message
            if message.number == 0 and message.event == "rung":
                pool.fate[0] = Message(0, "lost", reason="gone", place_lost=True)
            elif message.event == "lost":
                del pool.fate[0]

    pool.submit, pool.messages = submitted, lost_after_a_rung
    found = confirm_with(run, pool, seeds=1)
    assert found["failed"] == {}
    names = [folder.name.rpartition(".")[0] for folder in folders]
    assert names == ["", "1", "2", "3"], "lost after each rung but the last"
    trainings = {task.number for task in pool.tasks}
    assert len(pool.trained) == len(trainings) * len(pool.tasks[0].rung_steps), "no rung twice"


def test_a_training_outlives_no_sixth_place(
    run: Path, pool_class: MakePool, confirm_with: Confirm
) -> None:
    pool = pool_class(fate={0: Message(0, "lost", reason="gone", place_lost=True)})
    assert list(confirm_with(run, pool, seeds=1)["failed"].values()) == ["gone"]
    assert sum(task.number == 0 for task in pool.tasks) == PLACE_LOSSES + 1


def test_without_a_test_part_it_says_so(
    tmp_path: Path,
    fakes: SimpleNamespace,
    pool_class: MakePool,
    confirm_with: Confirm,
) -> None:
    run = make_run(tmp_path, fakes, test_share=0, trials=2)
    found = confirm_with(run, pool_class(), seeds=2)
    assert found["compared_on"] == "validation"
    assert "test" not in found["points"][0]
    text = Confirmation.from_json(found).text()
    assert "no test part" in text
    assert "that the search chose by, so it flatters" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_table_fits_a_terminal(run: Path, pool_class: MakePool, confirm_with: Confirm) -> None:
    found = confirm_with(run, pool_class(), seeds=3)
    lines = Confirmation.from_json(found).text().splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert lines[1].split() == [
        *("trial", "GFLOPs", "params", "searched", "validation", "sd", "test", "sd", "drop")
    ]
    assert any(line.endswith("exceeds noise") for line in lines)
    assert any(line.endswith("within noise") for line in lines)
    told = "on test cases, by the noise of cases only:"
    one_seed = replace(Confirmation.from_json(found), seeds=1).text()
    assert told in one_seed and told not in "\n".join(lines)


def test_other_splits_than_the_runs_are_refused(
    run: Path, tmp_path: Path, pool_class: MakePool, confirm_with: Confirm, fakes: SimpleNamespace
) -> None:
    dataset = fakes.fake_dataset(tmp_path / "preprocessed")
    folds = [{"train": CASES[:16], "val": CASES[16:]}]
    test = split_cases(dataset, fold=0, test_share=0.3, seed=0).test
    folds = [{"train": [c for c in CASES if c != test[0]], "val": [test[0]]}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    pool = pool_class()
    with pytest.raises(SpecError, match=f"test cases {test[0]} are no training cases of fold 0"):
        confirm_with(run, pool)
    assert pool.tasks == []
