"""Objectives: another Dice, other costs, and three at once, from the space to the report."""

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

import search.retrain.confirm
from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from archspec.network.plan import plan
from archspec.spec.load import load
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.pareto import non_dominated, pareto_front
from search.report.write import best_trial, front_table, report_json, write_report
from search.retrain.confirm import confirm
from search.retrain.control import compare_with_control
from search.space.objectives import Objectives
from search.space.settings import SearchSettings
from search.space.space import load_space
from search.study.ledger import ended
from search.study.stop import ParetoHalving
from search.study.storage import open_run
from search.trials.latency import Latency, measure_latency

Write = Callable[..., Path]
CASES = [f"case_{number}" for number in range(12)]


@pytest.fixture
def write(tmp_path: Path, space_tree: dict[str, Any]) -> Write:
    """Return a function that writes the space of six networks with these objectives."""

    def write(objectives: Any, **settings: Any) -> Path:
        section = {"steps": 9, "rungs": 2, **settings, "objectives": objectives}
        path = tmp_path / "space.yaml"
        path.write_text(dump({**space_tree, "search": section}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def pool(fakes: SimpleNamespace) -> Any:
    """Return a pool whose organ has a Dice that grows with the width, and the mean is 0.9."""

    class Pool(fakes.FakePool):  # type: ignore[misc, name-defined]
        def messages(self) -> Iterator[Any]:
            widths = {task.number: width(task) for task in self.tasks}
            for message in super().messages():
                scores = {"mean": 0.9, "organ": 0.4 + widths[message.number] / 10}
                yield replace(message, rung=replace(message.rung, scores=scores, smoothed=0.9))

    return Pool()


def width(task: Any) -> float:
    return float(task.tree["encoder"]["stages"][0]["width"])


def brute_force(points: list[tuple[tuple[float, ...], float]]) -> set[int]:
    """Return who is dominated by none, by the definition."""

    def better(a: int, b: int) -> bool:
        (costs, value), (others, other) = points[a], points[b]
        no_worse = value >= other and all(x <= y for x, y in zip(costs, others, strict=True))
        return no_worse and (points[a] != points[b] or a < b)

    every = range(len(points))
    return {b for b in every if not any(better(a, b) for a in every if a != b)}


@pytest.mark.parametrize("seed", range(30))
def test_the_front_is_that_of_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    for number in (1, 2):
        points = [
            (tuple(float(rng.randrange(5)) for _ in range(number)), float(rng.randrange(5)))
            for _ in range(rng.randrange(30))
        ]
        front = non_dominated(points)
        assert set(front) == brute_force(points)
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
        if number == 1:
            assert front == pareto_front([(cost, value) for (cost,), value in points])


def test_the_stopper_asks_who_costs_no_more_in_anything() -> None:
    stopper = ParetoHalving(4)
    for trial in range(9):
        assert stopper.decide(0, 0.9, (9.0, 5.0), trial)
    assert stopper.decide(0, 0.1, (9.0, 4.9), 9), "nobody costs no more in both"
    assert not stopper.decide(0, 0.1, (9.0, 5.0), 10)


@pytest.mark.parametrize(
    ("written", "label", "value"),
    [
        (["dice", "flops"], "Dice", 0.5),
        (["worst_class", "memory"], "Dice of the worst class", 0.2),
        ([{"dice": {"class": "b"}}, "params", "flops"], "Dice of b", 0.8),
    ],
)
def test_each_dice_is_what_it_says(written: Any, label: str, value: float) -> None:
    settings = SearchSettings.model_validate({"objectives": tuple(written)})
    found = settings.objectives
    assert (found.dice_label, found.written()) == (label, written)
    scores = {"mean": 0.5, "a": 0.2, "b": 0.8, "no case has it": math.nan, "a and b": 0.1}
    assert found.score(scores, ("a", "b", "no case has it")) == value
    assert math.isnan(found.score({"a": math.nan, "b": math.nan, "mean": math.nan}, ("a", "b")))
    text = json.dumps(settings.model_dump(mode="json"))
    assert SearchSettings.model_validate_json(text).objectives == found
    assert settings.recorded().get("objectives") == (None if found == Objectives() else written)


@pytest.mark.parametrize(
    ("objectives", "told"),
    [
        ("dice", "then one or two different costs of flops, params, memory, latency"),
        ([], "must be a Dice"),
        (["dice"], "as [dice, flops]; got"),
        (["flops", "dice"], "among the costs"),
        (["dice", "flop"], "got 'flop' among the costs; did you mean 'flops'?"),
        (["dice", "flops", "flops"], "one or two different costs"),
        (["dice", "flops", "params", "latency"], "one or two different costs"),
        ([{"dice": "organ"}, "flops"], "{dice: {class: NAME}}"),
        ([{"dice": {"class": 3}}, "flops"], "{dice: {class: NAME}}"),
    ],
)
def test_what_are_no_objectives_is_refused_where_it_stands(
    write: Write, objectives: Any, told: str
) -> None:
    path = write(objectives)
    with pytest.raises(SpecError) as error:
        load_space(path)
    line = str(error.value)
    assert line.startswith(f"{path}:") and "search.objectives" in line and told in line
    assert "\n" not in line


def test_a_class_that_the_dataset_lacks_is_refused_before_anything_is_written(
    write: Write, tmp_path: Path, fakes: SimpleNamespace
) -> None:
    path = write([{"dice": {"class": "orgen"}}, "flops"])
    told = r"'orgen' is no class of Dataset901_X; allowed: organ; did you mean 'organ'\?"
    with pytest.raises(SpecError, match=told) as error:
        fakes.run_fake(path, tmp_path / "run", 2, fakes.FakePool())
    assert str(error.value).startswith(f"{path}:") and not (tmp_path / "run").exists()


def test_three_objectives_from_the_study_to_the_report(
    write: Write,
    tmp_path: Path,
    fakes: SimpleNamespace,
    pool: Any,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wider a network, the better its organ and the dearer it is; a mixer is for nothing."""
    path, out = write([{"dice": {"class": "organ"}}, "params", "memory"]), tmp_path / "run"
    fakes.run_fake(path, out, 3, pool)
    study = fakes.run_fake(path, out, 6, pool)  # resumed
    assert study.metric_names == ["dice_of_organ", "log10_params", "log10_memory"]
    sizes = fakes.fake_dataset(tmp_path / "preprocessed").sizes
    trials = ended(study)
    for trial in trials:
        planned = plan(load(out / "trials" / f"{trial.number:04d}" / "spec.yaml"), sizes)
        memory = training_memory(planned, batch=2, amp=False).total
        organ = 0.4 + trial.params["encoder.stages.0.width"] / 10
        costs = [math.log10(cost_plan(planned).params), math.log10(memory)]
        assert trial.values == [pytest.approx(organ), *map(pytest.approx, costs)]
        assert [rung["smoothed"] for rung in trial.user_attrs["rungs"]] == [
            pytest.approx(organ)
        ] * 2, "rungs are judged by it too"
    points = [((t.values[1], t.values[2]), t.values[0]) for t in trials]
    front = {trials[index].number for index in brute_force(points)}
    table, found = front_table(out), report_json(out)
    assert set(found["front"]) == front and len(front) > 1
    assert table.splitlines()[0].split() == ["trial", "GFLOPs", "params", "GB", "Dice", "organ"]
    assert "as good in all of Dice of organ, params, memory" in table
    assert all(row["memory_gb"] > 0 for row in found["trials"] if row["dice"] != "")
    page = next(file for file in write_report(out) if file.suffix == ".html").read_text()
    assert "A picture shows the Dice against one of the costs" in page
    assert "validation Dice of organ" in page and "<th>GB</th>" in page
    best = best_trial(out)
    assert best.number == max(front, key=lambda number: study.trials[number].values[0])
    assert "validation Dice of organ 0.800" in best.summary and " GB" in best.summary

    again = scoring_pool(lambda task, part, index: 0.0)
    score = {"mean": 0.0, "organ": 0.55}
    monkeypatch.setattr(type(again), "messages", _with_scores(type(again).messages, score))
    again.validation = ("case_0",)
    in_place_of_workers(again)
    dataset = fakes.fake_dataset(tmp_path / "preprocessed")
    monkeypatch.setattr(search.retrain.confirm, "find_dataset", lambda *_, **__: dataset)
    confirmed = confirm(out, seeds=1)
    assert [point.trial for point in confirmed.points] == found["front"]
    assert [point.validation.mean for point in confirmed.points] == [0.55] * len(front)
    assert "steps: Dice of organ" in confirmed.text()
    assert "Dice is the Dice of organ" in write_report(out)[-1].read_text()
    with pytest.raises(SpecError, match="its Dice is sought against params"):
        compare_with_control([out], [out.parent / "other"])


def _with_scores(messages: Any, score: dict[str, float]) -> Any:
    def changed(self: Any) -> Iterator[Any]:
        for one in messages(self):
            cases = one.cases and tuple(dict.fromkeys(part, score) for part in one.cases)
            yield replace(one, cases=cases)

    return changed


def test_usual_objectives_leave_no_trace(
    write: Write, tmp_path: Path, fakes: SimpleNamespace
) -> None:
    out = tmp_path / "run"
    fakes.run_fake(write(["dice", "flops"]), out, 2, fakes.FakePool())
    for name in ("run.json", "space.yaml"):
        assert "objectives" not in (out / name).read_text(encoding="utf-8")
    study, _ = open_run(out)
    assert study.metric_names == ["dice", "log10_flops"]
    assert not any("memory" in trial.user_attrs for trial in study.trials)
    with pytest.raises(SpecError, match="settings differ"):
        fakes.run_fake(write(["dice", "params"]), out, 3, fakes.FakePool())


def test_latency_counts_in_calibrations_and_is_measured_once(
    write: Write, tmp_path: Path, fakes: SimpleNamespace
) -> None:
    """Killed behind its first rung, a trial keeps what was measured before."""

    class Pool(fakes.FakePool):  # type: ignore[misc, name-defined]
        load = 1.0

        def messages(self) -> Iterator[Any]:
            asked = {task.number for task in self.tasks if task.measure_latency}
            for message in super().messages():
                task = next(t for t in self.tasks if t.number == message.number)
                seconds = width(task) / 100 * self.load
                told = Latency(seconds, 0.005 * self.load)
                yield replace(message, latency=told if message.number in asked else None)

    class Killed(BaseException):
        pass

    def kill(event: Any) -> None:
        if (event.kind, event.number) == ("rung", 2):
            raise Killed

    path, out, pool = write(["dice", "latency", "flops"]), tmp_path / "run", Pool()
    with pytest.raises(Killed):
        fakes.run_fake(path, out, 5, pool, on_event=kill)
    again = Pool()
    again.load = 3.0  # the machine is busier now
    study = fakes.run_fake(path, out, 5, again)
    heir = next(t for t in study.trials if t.user_attrs.get("resumed_from") == 2)
    assert [t.number for t in again.tasks if not t.measure_latency] == [heir.number]
    assert heir.user_attrs["latency"] == study.trials[2].user_attrs["latency"]
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        ratio = trial.params["encoder.stages.0.width"] / 100 / 0.005
        assert trial.values[1] == pytest.approx(math.log10(ratio))
    rows = {row["trial"]: row for row in report_json(out)["trials"] if row["dice"] != ""}
    times = {round(row["calibration_ms"], 6) for row in rows.values()}
    assert times == {5.0, 15.0} and "latency" in front_table(out).splitlines()[0]
    assert " calibrations" in best_trial(out).summary
    page = write_report(out)[-1].read_text()
    for name, title in (("pareto", "latency of a patch"), ("pareto against flops", "GFLOPs")):
        assert re.search(rf'name="axis" value="{name}"[^>]*> {title}', page)
        assert f'"{name}": {{' in page, "the figure that it shows"


def test_a_latency_is_measured_beside_the_calibration() -> None:
    tree = {
        "name": "tiny",
        "patch_size": [8, 8],
        "encoder": {"stages": [{"width": 2, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
    }
    found = measure_latency(plan(load(tree)), torch.device("cpu"))
    assert 0 < found.seconds < math.inf and 0 < found.calibration < math.inf
