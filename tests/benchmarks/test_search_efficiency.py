"""Searches replayed over recorded trainings: against hand computation, and the committed table."""

import math

import numpy as np
import optuna
import pytest
import search_curves
from curves import CurvePoint, describe_training, read_curves
from quick_replay import quick_replay
from search_comparison import (
    compare_searches,
    crossing,
    growth,
    reached_at,
    spent_until,
    upper_median,
)
from search_curves import Seconds, name_of, networks
from search_efficiency import METHODS, opened, run
from search_replay import Known, Replay, Table, replay

from search.space.space import load_space
from search.study.stop import NeverStop, ParetoHalving

SPACE = """
name: toy
patch_size: [16, 16, 16]
num_classes: 2
encoder:
  defaults: {mixer: {kind: conv}}
  stages:
    - {width: {choice: [2, 3, 4, 5, 6, 7], name: width}, depth: 1, downsample: {stride: 2}}
    - {width: 4, depth: 1, downsample: {stride: 2}}
decoder: {kind: mlp, width: 4}
search:
  steps: 9
  rungs: 3
  anchors: [{width: 2}, {width: 3}, {width: 4}, {width: 5}, {width: 6}, {width: 7}]
"""
DICE = {2: (0.1, 0.2, 0.3), 3: (0.1, 0.2, 0.4), 4: (0.1, 0.3, 0.5), 5: (0.1, 0.2, 0.3)}
DICE |= {6: (0.1, 0.2, 0.45), 7: (0.0, 0.5, 0.9)}
"""By width and rung: 2, 3, 4 and 7 are the front, and 7, which costs most, starts worst."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Known, Table]:
    """Return six networks, recorded in files: start 1 s, a step 2 s, a validation 3 s."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.yaml").write_text(SPACE)
    known = Known.of(load_space(folder / "toy.yaml"))
    curves, costs = folder / "curves.csv", folder / "costs.csv"
    for params in networks(known):
        training = describe_training(
            known.plans[name_of(params)],
            name=name_of(params),
            task="toy",
            level="1",
            cases=1,
            seed=0,
            batch_size=2,
            steps=9,
        )
        points = [
            CurvePoint(training=training, step=step, seconds=0.0, dice=dice, loss=0.0, scores={})
            for step, dice in zip((1, 3, 9), DICE[params["width"]], strict=True)
        ]
        search_curves.add(curves, costs, points, Seconds(name_of(params), 1.0, 9 * 2.0, 3 * 3.0))
    return known, Table.of(read_curves(curves), search_curves.read_costs(costs), known)


def width(name: str) -> int:
    return int(name.removeprefix("width="))


def spends(found: list[tuple[float, str]]) -> list[tuple[float, int]]:
    """Return what had been spent, in seconds of the toy, and the width."""
    return [(round(28 * spent, 6), width(name)) for spent, name in found]


def test_a_full_search_spends_what_its_trainings_cost(toy: tuple[Known, Table]) -> None:
    """Anchors come in their order; 28 s each; the third is under way when the budget is spent."""
    known, table = toy
    run = replay(known, table, optuna.samplers.RandomSampler(seed=0), stopper="none", budget=2.5)
    assert spends(run.done) == [(28, 2), (56, 3), (84, 4)]
    assert run.stopped == []
    assert run.spent == pytest.approx(3)


@pytest.mark.parametrize("stopper", ["none", "pash"])
def test_the_quick_replay_is_the_loop(stopper: str, toy: tuple[Known, Table]) -> None:
    known, table = toy
    rule = NeverStop() if stopper == "none" else ParetoHalving(3, evidence=5)
    sampler, again = (optuna.samplers.TPESampler(seed=1, n_startup_trials=2) for _ in range(2))
    quick = quick_replay(known, table, sampler, rule, budget=99)
    loop = replay(known, table, again, stopper=stopper, budget=99, anchors=False)
    assert (quick.done, quick.stopped) == (loop.done, loop.stopped)
    assert len(quick.done) + len(quick.stopped) == 6


def test_a_stopped_training_costs_its_rungs_and_gives_no_point(toy: tuple[Known, Table]) -> None:
    """Five are cheaper than width 7 and ahead of it by more than the margin: 1 + 2 + 3 s."""
    known, table = toy
    sampler = optuna.samplers.RandomSampler(seed=0)
    run = replay(known, table, sampler, stopper="pash", budget=99)
    assert spends(run.done) == [(28, 2), (56, 3), (84, 4), (112, 5), (140, 6)]
    assert spends(run.stopped) == [(146, 7)]
    assert 28 * run.spent == pytest.approx(146), "used up: nothing is trained twice"


def test_hypervolume_is_that_of_what_ended_within_the_budget(toy: tuple[Known, Table]) -> None:
    known, table = toy
    assert [width(name) for name in table.front] == [2, 3, 4, 7]
    f = {width(name): math.log10(flops) for name, flops in table.flops.items()}
    end = f[7] + math.log10(1.1)
    whole = 0.1 * (f[4] - f[3]) + 0.2 * (f[7] - f[4]) + 0.6 * (end - f[7])
    run = replay(known, table, optuna.samplers.RandomSampler(seed=0), stopper="none", budget=99)
    steps = growth(table, run, 3.5)
    assert [when for when, _ in steps] == pytest.approx([0, 2, 3]), "the lowest Dice adds nothing"
    areas = [0.1 * (end - f[3]), 0.1 * (f[4] - f[3]) + 0.2 * (end - f[4])]
    assert [reached for _, reached in steps[1:]] == pytest.approx([a / whole for a in areas])
    assert growth(table, run, 6)[-1] == pytest.approx((6, 1.0))
    assert [reached_at(steps, spent) for spent in (1.9, 2.1, 2.9)] == [0, steps[1][1], steps[1][1]]
    assert spent_until(steps, areas[0] / whole) == pytest.approx(2)
    assert spent_until(steps, 1) == math.inf


def test_methods_are_compared_by_seed_and_by_mean_curve(toy: tuple[Known, Table]) -> None:
    """Ours has the base's end at half the budget in one seed, and never in the other."""
    _, table = toy
    whole = [(3.0, "width=3"), (6.0, "width=7")]
    runs = {
        "base": [Replay(whole, [], 6.0), Replay(whole, [], 6.0)],
        "ours": [
            Replay([(1.0, "width=7"), (3.0, "width=3")], [(4.0, "width=6")], 7.0),
            Replay([(1.0, "width=3")], [(2.0, "width=7"), (3.0, "width=4")], 5.0),
        ],
    }
    found = compare_searches(table, runs, 6, base="base")
    one, two = table.share(["width=3", "width=7"]), table.share(["width=3"])
    assert found["base"]["minus_base"] == {"value": 0, "low": 0, "high": 0}
    assert found["base"]["reaches_base"]["by_seed"] == [1, 1]
    ours = found["ours"]
    assert ours["minus_base"]["value"] == pytest.approx((two - one) / 2)
    assert ours["minus_base"]["low"] == pytest.approx(two - one)
    assert ours["minus_base"]["high"] == 0
    assert ours["reaches_base"]["by_seed"] == [0.5, None]
    assert ours["reaches_base"]["median_share"] == {"value": None, "low": 0.5, "high": None}
    assert ours["reaches_base"]["seeds_never"] == 1
    assert ours["reaches_base"]["share_of_mean_curve"]["value"] is None
    assert ours["hypervolume"]["0.500"]["value"] == pytest.approx((one + two) / 2)
    assert (ours["trained"], ours["stopped"]) == (1.5, 1.5)
    assert (ours["most_spent"], ours["runs_dry"]) == (7, 1)
    assert ours["runs_that_stopped_a_front_network"] == 1
    assert ours["front_networks_stopped_per_run"] == 1


def test_the_mean_curve_crosses_where_the_mean_reaches_the_mean_target() -> None:
    grid = np.array([0.0, 0.5, 1.0])
    rows = np.array([[0.0, 0.4, 0.6, 0.5], [0.0, 0.6, 0.9, 0.5]])
    assert crossing(grid, rows) == 0.5
    rows[:, -1] = 0.75
    assert crossing(grid, rows) == 1.0
    rows[:, -1] = 0.8
    assert crossing(grid, rows) == math.inf
    assert upper_median(np.array([math.inf, 0.2, 0.1])) == 0.2
    assert upper_median(np.array([0.2, math.inf])) == math.inf


def test_every_network_of_the_space_is_recorded_at_every_rung() -> None:
    known, table = opened()
    assert len(table.flops) == known.size().combinations >= 40
    assert all(len(dice) == len(known.settings.rung_steps) == 4 for dice in table.dice.values())
    assert {cost.flops for cost in known.costs.values()} == set(table.flops.values())
    assert table.cost.start > 0 and min(*table.cost.step, *table.cost.validation) > 0
    assert table.misfit(search_curves.read_costs(search_curves.COSTS)) < 0.2
    assert table.share(table.front) == 1 == table.share(list(table.flops))


@pytest.mark.parametrize("name", METHODS)
def test_a_replay_spends_its_budget_and_repeats(name: str) -> None:
    """One training too many at most; the same seed gives the same search."""
    (_, table), budget = opened(), 8.0
    first, again = (run(name, 3, budget, True) for _ in range(2))
    dearest = max(table.cost_until(one, len(table.steps) - 1) for one in table.flops)
    assert budget <= first.spent < budget + dearest
    assert first == again
    names = [one for _, one in (*first.done, *first.stopped)]
    assert len(names) == len(set(names)), "nothing is trained twice"
    assert METHODS[name].stopper != "none" or not first.stopped
