"""The sampler that knows costs: its expectation against random draws, and what it reads."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, TrialState

from search.pareto import hypervolume
from search.space.objectives import Objectives
from search.space.samplers import CostAwareSpec
from search.study.candidates import Candidate, Candidates
from search.study.cost_aware import CostAwareSampler, expected_gain
from search.study.curve_model import CurveModel, Encoder
from search.study.end import End
from search.study.trial_record import JudgedRung, TrialRecord, write

STEPS = (1, 3)
KERNELS = (1, 3, 5)


def draw(trial: BaseTrial) -> dict[str, Any]:
    """Draw a network: the kernel is a hole of one of the mixers alone."""
    found = {"width": trial.suggest_int("width", 2, 40), "mixer": ""}
    found["mixer"] = trial.suggest_categorical("mixer", ("conv", "identity"))
    if found["mixer"] == "conv":
        found["kernel"] = trial.suggest_categorical("kernel", KERNELS)
    return found


def price(trial: BaseTrial) -> Mapping[str, float] | None:
    found = draw(trial)
    if found["width"] == 40:  # over a limit
        return None
    flops = 1e6 * found["width"] * found.get("kernel", 1)
    return {"flops": flops, "params": 1e3 * found["width"]}


def search(trials: int, seed: int = 0, study: optuna.Study | None = None) -> optuna.Study:
    """Go on with a search until it has so many trials, with Dice and two costs."""
    objectives = Objectives(costs=("flops", "params"))
    if study is None:
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    options = CostAwareSpec(n_startup_trials=2, candidates=6)
    study.sampler = CostAwareSampler(options, price, objectives, STEPS, seed)
    while len(study.trials) < trials:
        trial = study.ask()
        found = draw(trial)
        flops = int(1e6 * found["width"] * found.get("kernel", 1))
        dice = 0.9 - 1 / found["width"] - 0.2 * (found.get("kernel") != 3)
        rungs = [JudgedRung(1, {"mean": dice / 2}, 0.0, 1.0)]
        stopped = dice < 0.5
        record = {"flops": flops, "params": 1000 * found["width"], "rungs": tuple(rungs)}
        write(trial, TrialRecord(**record, end=End.STOPPED if stopped else None))
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [dice, math.log10(flops), math.log10(1000 * found["width"])])
    return study


def drawn(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_a_seed_gives_one_search_which_is_gone_on_with_by_its_study_alone() -> None:
    whole = search(9)
    assert drawn(search(9)) == drawn(whole), "twice the same"
    assert drawn(search(9, seed=1)) != drawn(whole)
    assert drawn(search(9, study=search(6))) == drawn(whole), "by another process"
    keys = {Candidate.key_of(params) for params in drawn(whole)}
    assert len(keys) == 9, "none twice"
    assert all(("kernel" in params) == (params["mixer"] == "conv") for params in drawn(whole))
    assert all(params["width"] < 40 for params in drawn(whole)), "none over the limit"


def test_what_is_queued_comes_first_and_what_trains_is_not_proposed_again() -> None:
    study = search(4)
    queued = {"width": 7, "mixer": "identity"}
    study.enqueue_trial(queued)
    asked = [study.ask() for _ in range(3)]  # three workers
    found = [draw(trial) for trial in asked]
    assert found[0] == queued
    assert len({Candidate.key_of(trial.params) for trial in (*asked, *study.trials[:4])}) == 7


def test_the_expected_gain_is_that_of_random_draws() -> None:
    rng = np.random.default_rng(0)
    front, dice = np.array([[7.0], [7.5], [8.2]]), np.array([0.5, 0.7, 0.8])
    costs, mean, deviation = np.array([[6.8], [7.2], [8.0]]), np.array([0.5, 0.75, 0.6]), 0.1
    found = expected_gain(mean, np.full(3, deviation), costs, front, dice, np.array([8.5]))
    points, end = list(zip(front[:, 0], dice, strict=True)), (8.5, 0.5)
    for index, cost in enumerate(costs[:, 0]):
        draws = rng.normal(mean[index], deviation, 20_000)
        areas = [hypervolume([*points, (cost, one)], end) for one in draws]
        gains = np.array(areas) - hypervolume(points, end)
        error = 4 * gains.std() / math.sqrt(len(gains))
        assert found[index] == pytest.approx(gains.mean(), abs=error)


def test_two_costs_of_which_one_is_always_equal_are_one() -> None:
    front, dice = np.array([[7.0], [7.5], [8.2]]), np.array([0.5, 0.7, 0.8])
    costs, mean, deviation = np.array([[6.8], [7.2]]), np.array([0.5, 0.75]), np.array([0.1, 0.2])
    one = expected_gain(mean, deviation, costs, front, dice, np.array([8.5]))
    same = [np.column_stack([each, np.full(len(each), 3.0)]) for each in (costs, front)]
    two = expected_gain(mean, deviation, same[0], same[1], dice, np.array([8.5, 4.0]))
    assert two == pytest.approx(one)


def test_candidates_are_of_the_seed_and_the_trial_number() -> None:
    front = [{"width": 3, "mixer": "conv", "kernel": 3}]
    one, other = Candidates(price, 5), Candidates(price, 5)
    one.at(0, 4, [])  # what came before changes nothing
    found = [candidate.key for candidate in one.at(2, 4, front)]
    assert found == [candidate.key for candidate in other.at(2, 4, front)]
    assert len(found) == len(set(found))


def test_features_are_scaled_numbers_and_options() -> None:
    holes = {
        "lr": CategoricalDistribution((1e-3, 1e-1)),
        "mixer": CategoricalDistribution(("conv", "mamba")),
        "width": IntDistribution(10, 20),
        "rate": FloatDistribution(1, 100, log=True),
    }
    encoder = Encoder.of([holes])
    found = encoder.encode([{"lr": 1e-2, "mixer": "mamba", "width": 15, "rate": 10.0}, {}], [8, 9])
    names = [column.hole for column in encoder.columns]
    assert names == ["lr", "mixer", "mixer", "rate", "width"]
    assert found[0] == pytest.approx([0.5, 0, 1, 0.5, 0.5, 8])
    assert found[1] == pytest.approx([0.5, 0, 0, 0.5, 0.5, 9]), "a hole that was not drawn"


def test_early_rungs_of_stopped_trials_teach() -> None:
    """The first feature decides; where it is high, trials were stopped, or none has been yet."""
    low, high = [0.0, 0.2, 0.3], [0.8, 0.9]
    features = np.array([[x, 8.0] for x in (*low, *high)])
    curves = [{0: 0.4 - x / 2, 1: 0.9 - x / 2} for x in low]
    asked = np.array([[0.1, 8.0], [0.85, 8.0]])
    alone = CurveModel(2).fitted(features[:3], curves, [True] * 3).predict(asked)
    stopped = [{0: 0.4 - x / 2} for x in high]
    taught = CurveModel(2).fitted(features, curves + stopped, [True] * 5).predict(asked)
    assert taught[1][1] < 0.8 * alone[1][1], "it is surer there"
    assert taught[0][1] < taught[0][0] - 0.2
    assert taught[0][0] == pytest.approx(0.85, abs=0.03)
