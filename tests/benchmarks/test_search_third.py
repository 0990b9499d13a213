"""Many replays at once: as the loop searches, with the noise of a second recording."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from curves import append_points, read_curves
from optuna.samplers import TPESampler
from quick_replay import OracleStopper, oracle_sampler, quick_replay
from search_curves import CURVES, REPEATS, networks, repeated
from search_efficiency import opened
from search_replay import Known, Replay, Table, replay
from search_third import METHODS, Noise, run, scores

from search.study.stop import NeverStop, ParetoHalving


@pytest.fixture(scope="module")
def recorded() -> tuple[Known, Table]:
    return opened()


@pytest.mark.long  # the loop has every network costed anew; test_search_efficiency has six
@pytest.mark.parametrize("stopper", ["none", "pash"])
def test_the_quick_replay_does_what_the_loop_does(
    stopper: str, recorded: tuple[Known, Table]
) -> None:
    known, table = recorded
    rule = NeverStop() if stopper == "none" else ParetoHalving(len(table.steps))
    quick = quick_replay(known, table, TPESampler(seed=3), rule, budget=9)
    loop = replay(known, table, TPESampler(seed=3), stopper=stopper, budget=9, anchors=False)
    assert (quick.done, quick.stopped) == (loop.done, loop.stopped)
    assert bool(quick.stopped) == (stopper == "pash")


def test_the_oracles_waste_nothing(recorded: tuple[Known, Table]) -> None:
    known, table = recorded
    best = oracle_sampler(table, 12)
    names = [name for _, name in best.done]
    reached = [table.share(names[: index + 1]) for index in range(len(names))]
    assert max(table.share([name]) / table.cost_until(name, 3) for name in table.flops) == (
        pytest.approx(reached[0] / table.cost_until(names[0], 3))
    )
    assert set(table.front) <= set(names) and reached[len(table.front) - 1] > 0.999
    found = quick_replay(known, table, TPESampler(seed=0), OracleStopper(table), budget=6)
    ended = [name for _, name in found.done]
    gains = [table.share(ended[: index + 1]) for index in range(len(ended))]
    assert gains == sorted(set(gains)), "whatever was trained added something"
    assert found.stopped


def test_noise_is_that_of_the_repeated_trainings(
    recorded: tuple[Known, Table], tmp_path: Path
) -> None:
    """Two networks, one of them 0.1 above the table in one more seed: variance 0.005 + 0 over 2."""
    _, table = recorded
    points = list(read_curves(CURVES).values())[:2]
    for curve, by in zip(points, (0.1, 0.0), strict=True):
        moved = [
            replace(point, dice=point.dice + by, training=replace(point.training, seed=1))
            for point in curve
        ]
        append_points(tmp_path / "repeats.csv", moved)
    noise = Noise.of(table, tmp_path / "repeats.csv")
    assert noise.networks == 2
    assert noise.covariance == pytest.approx(np.full((4, 4), 0.0025), abs=1e-5)
    assert noise.deviations == [0.05] * 4
    one, other = noise.seen(table, 1), noise.seen(table, 2)
    assert one == noise.seen(table, 1) and one != other
    shifts = [np.array(one[name]) - table.dice[name] for name in table.front[2:]]
    assert all(np.ptp(shift[1:3]) < 0.01 for shift in shifts), "rungs move together"


def test_the_front_is_chosen_by_what_was_seen_and_scored_by_the_table(
    recorded: tuple[Known, Table],
) -> None:
    _, table = recorded
    good, bad = table.front[2], table.front[0]
    found = Replay([(1.0, bad), (2.0, good)], [], 2.0)
    fair = scores(table, found, table.dice, 2.0)
    assert fair["hypervolume"][-1] == pytest.approx(table.share([bad, good]))
    assert fair["hypervolume"][:2] == [0, 0] and fair["hypervolume"][2] == table.share([bad])
    lucky = {**table.dice, bad: (0, 0, 0, 0.99)}
    assert scores(table, found, lucky, 2.0)["hypervolume"][-1] == table.share([bad])
    best = max(dice[-1] for dice in table.dice.values())
    assert fair["regret"][-1] == pytest.approx(best - table.dice[good][-1])
    assert scores(table, found, lucky, 2.0)["regret"][-1] == best - table.dice[bad][-1]


def test_a_seed_gives_a_replay(recorded: tuple[Known, Table]) -> None:
    _, table = recorded
    noise = Noise.of(table, REPEATS)
    assert run("cost_aware", 0, 5.0, noise, recorded) == run("cost_aware", 0, 5.0, noise, recorded)
    assert run("cost_aware", 0, 5.0, noise, recorded) != run("cost_aware", 1, 5.0, noise, recorded)
    assert set(METHODS) > {"TPE", "TPE + PA-SH", "cost_aware", "cost_aware + PA-SH", "GP", "random"}


def test_what_is_repeated_are_different_networks_with_further_seeds(
    recorded: tuple[Known, Table],
) -> None:
    jobs = repeated(list(networks(recorded[0])), 3)
    assert [seed for _, seed in jobs] == [1, 2] * 3
    assert len({str(params) for params, _ in jobs}) == 3
