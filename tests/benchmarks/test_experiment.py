"""Experiments: what is on record, whose rate a paired arm takes, and what differences say."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trainings
import verdicts
from curves import read_points
from experiment import Arm, Bench, Budget, Runner, Tables
from torch import Tensor, nn
from trainings import Job, Outcome

from archspec.network.input_sizes import InputSizes
from archspec.scoring.statistics import holm

PATCH = (8, 8, 8)
RATES = (0.02, 0.01)
BUDGET = Budget(seeds=2, steps=9, rates=RATES, rungs=3, choose_at=2)


class FakeData:
    """Random patches; scores follow from the weights."""

    validation_cases, test_cases = ["a"], ["b", "c"]

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.randn(1, 1, *PATCH), torch.randint(2, (1, *PATCH))

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> nn.Module:
        return nn.CrossEntropyLoss()

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        return self.score_cases(net, device, self.validation_cases)["a"]

    def score_cases(
        self, net: nn.Module, device: torch.device, cases: list[str]
    ) -> dict[str, dict[str, float]]:
        total = sum(float(weight.detach().abs().sum()) for weight in net.parameters())
        return {case: {"mean": total, "organ": total} for case in cases}


@pytest.fixture(autouse=True)
def _fake_data(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = InputSizes(in_channels=1, num_classes=2, patch_size=PATCH)
    split = SimpleNamespace(train=("d", "e"))
    monkeypatch.setattr(trainings, "find_dataset", lambda name: SimpleNamespace(sizes=sizes))
    monkeypatch.setattr(trainings, "split_cases", lambda dataset, fold: split)
    monkeypatch.setattr(trainings, "_data", lambda *settings: FakeData())


def arm(name: str, mixer: str = "conv", rate_of: str = "") -> Arm:
    tree = {
        "name": "tiny",
        "patch_size": PATCH,
        "encoder": {"stages": [{"width": 2, "mixer": {"kind": mixer}}]},
        "decoder": {"kind": "sum"},
        "training": {"schedule": "cosine", "lr": 0.1},
    }
    return Arm(name, tree, rate_of)


BENCH = Bench("test", "Dataset001_X", "x", "1", (), (arm("a"), arm("b", "identity", "a")))


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    tables = Tables(tmp_path / "curves.csv", tmp_path / "cases.csv")
    return Runner(tables, tmp_path / "checkpoints", jobs=1, device="cpu", minutes=None)


def do(runner: Runner, job: Job) -> Outcome:
    outcome = trainings.run(job)
    assert not outcome.failed
    runner.tables.add(outcome)
    return outcome


def test_a_stopped_training_goes_on_and_ends_as_one_in_one_go(
    runner: Runner, tmp_path: Path
) -> None:
    full = runner.job(BENCH, BENCH.arms[0], BUDGET, rate=0.02, seed=1)
    stopped = do(runner, replace(full, stop_after=2, test=False))
    assert [point.step for point in stopped.points] == [1, 3] and not stopped.test
    going_on = do(runner, full)
    whole = trainings.run(replace(full, folder=tmp_path / "other"))
    assert [point.dice for point in going_on.points] == [point.dice for point in whole.points]
    assert going_on.test == whole.test and list(whole.test) == ["b", "c"]
    steps = [point.step for point in read_points(runner.tables.curves_file)]
    assert steps == [1, 3, 9]
    assert Tables(runner.tables.curves_file, runner.tables.cases_file).has(full, full.training())


def test_a_longer_training_does_not_go_on_from_a_shorter_one(
    runner: Runner, tmp_path: Path
) -> None:
    full = runner.job(BENCH, BENCH.arms[0], BUDGET, rate=0.02, seed=1)
    do(runner, full)
    longer = replace(full, rung_steps=(1, 3, 27))
    whole = trainings.run(replace(longer, folder=tmp_path / "other"))
    assert [point.dice for point in do(runner, longer).points] == [p.dice for p in whole.points]


def test_a_fault_is_an_outcome_that_keeps_its_rungs(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = runner.job(BENCH, BENCH.arms[0], BUDGET, rate=0.02, seed=1)
    do(runner, replace(full, stop_after=1, test=False))
    broken = nn.Module()
    broken.forward = lambda logits, target: logits.sum() * float("nan")  # type: ignore[method-assign]
    monkeypatch.setattr(FakeData, "loss", lambda *_, **__: broken)
    outcome = trainings.run(full)
    assert "DivergedError" in outcome.failed
    assert [point.step for point in outcome.points] == [1] and not outcome.test


def test_a_paired_arm_takes_over_the_rate(runner: Runner) -> None:
    first, paired = BENCH.arms
    screening = list(runner._screening(BENCH, BUDGET))
    assert [(job.name, job.tree["training"]["lr"]) for job in screening] == [
        ("a", rate) for rate in RATES
    ]
    for job in screening:
        do(runner, job)
    found = runner.screened(BENCH, first, BUDGET)
    best = max(RATES, key=lambda rate: found[rate])
    assert found[RATES[0]] != found[RATES[1]]
    assert runner.choose(BENCH, first, BUDGET) == best == runner.choose(BENCH, paired, BUDGET)


def row(name: str, scores: np.ndarray) -> verdicts.Row:
    known = dict.fromkeys(verdicts.Row.__annotations__, 0)
    content = {"bench": "x 1", "arm": name, "metric": "mean", "test": [0.0], "test_surface": []}
    content |= {"validation": [0.0], "test_dice": [0.0]}
    return verdicts.Row(**{**known, **content, "matrices": {"mean": scores, "surface": scores / 2}})


def test_differences_are_of_every_metric_and_corrected_together() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0.4, 0.5, (3, 12))
    high = low + 0.1 + rng.normal(0, 0.001, low.shape)
    table = [row("low", low), row("high", high), row("same", low + rng.normal(0, 0.02, low.shape))]
    found = verdicts.differences(table, [("high", "low"), ("same", "low")], seed=0)
    assert [(one.a, one.metric) for one in found] == [
        ("high", "mean"),
        ("high", "surface"),
        ("same", "mean"),
        ("same", "surface"),
    ]
    assert found[0].mean == pytest.approx(0.1, abs=1e-3)
    assert found[1].mean == pytest.approx(0.05, abs=1e-3)
    assert found[0].low > 0.05 and found[2].low < 0 < found[2].high
    assert [one.p_holm for one in found] == holm([one.p for one in found])
    said = verdicts.text(table, found)
    assert said.count(": differs") == 2 and said.count("no difference shown") == 2


def test_one_seed_shows_nothing() -> None:
    scores = np.full((1, 12), 0.4)
    table = [row("low", scores), row("high", scores + 0.1)]
    said = verdicts.text(table, verdicts.differences(table, [("high", "low")], seed=0))
    assert said.count("one seed cannot tell") == 2 and "differs" not in said
