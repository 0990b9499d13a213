"""Stopping at rungs: the rule against its pseudo-code, and what it promises."""

import json
import random

import numpy as np
import pytest
from pydantic import ValidationError

from search.space.settings import SearchSettings
from search.study.earlier import complete_settings
from search.study.stop import (
    NeverStop,
    ParetoHalving,
    make_stopper,
)

MARGINS = (0.03, 0.02, 0.01)
Score = tuple[float, float]


def pseudo_code(recorded: list[Score], f: float, d: float, margin: float) -> bool:
    """Say whether a trial goes on, as the rule is written down: its own score is not among them."""
    cheaper = [score for score in recorded if score[0] <= f]
    if len(cheaper) < 5:
        return True
    if d >= max(dice for _, dice in cheaper) - margin:
        return True
    near = [score for score in recorded if abs(score[0] - f) <= 0.25]
    if len(near) < 5:
        near = cheaper
    return not d < np.quantile([dice for _, dice in near], 1 - 1 / 3)


def draw(rng: random.Random) -> Score:
    """Return (log10 FLOPs, Dice) of a network; dear ones tend to be better, and ties happen."""
    f = round(rng.uniform(8, 10), 1)
    return f, round(0.1 * (f - 8) + rng.uniform(0.4, 0.6), 2)


@pytest.mark.parametrize("seed", range(20))
def test_pash_decides_as_the_pseudo_code(seed: int) -> None:
    """T10: 1,000 decisions; margins are kept, and with fewer than five cheaper none is stopped."""
    rng = random.Random(seed)
    stopper = ParetoHalving(4)
    recorded: list[list[Score]] = [[], [], []]
    stopped = 0
    for trial in range(50):
        rung = rng.randrange(3)
        f, d = draw(rng)
        goes_on = stopper.decide(rung, d, (f,), trial)
        assert goes_on == pseudo_code(recorded[rung], f, d, MARGINS[rung])
        cheaper = [dice for flops, dice in recorded[rung] if flops <= f]
        if not goes_on:
            stopped += 1
            assert len(cheaper) >= 5
            assert d < max(cheaper) - MARGINS[rung]
        recorded[rung].append((f, d))
    assert 0 < stopped < 50


@pytest.mark.parametrize("seed", range(20))
def test_no_trial_of_the_final_front_is_stopped_where_ranks_hold_within_half_a_margin(
    seed: int,
) -> None:
    """T10, the promise behind the margin: rung Dice is final Dice less a shift, +- margin/2."""
    rng = random.Random(seed)
    trials = [draw(rng) for _ in range(60)]
    front = {
        i
        for i, (f, d) in enumerate(trials)
        if not any(g <= f and e >= d and (g, e) != (f, d) for g, e in trials)
    }
    stopper = ParetoHalving(4)
    for rung, margin in enumerate(MARGINS):
        for i, (f, d) in enumerate(trials):
            seen = d - 0.2 + rng.uniform(-margin / 2, margin / 2)
            assert stopper.decide(rung, seen, (f,), i) or i not in front


def test_the_last_rung_stops_nothing_and_fewer_rungs_take_the_last_margins() -> None:
    stopper = ParetoHalving(2)
    assert stopper.margin(0) == 0.01
    assert [ParetoHalving(5).margin(rung) for rung in range(4)] == [0.03, 0.03, 0.02, 0.01]
    for trial in range(9):
        stopper.decide(0, 0.9, (9.0,), trial)
    assert not stopper.decide(0, 0.1, (9.0,), 9)
    assert stopper.decide(1, 0.1, (9.0,), 9)


def test_remembered_scores_count_and_a_trial_is_not_judged_by_itself() -> None:
    """A resumed search decides like one that was never cut off."""
    one, other = ParetoHalving(4), ParetoHalving(4)
    for trial in range(5):
        one.decide(0, 0.8, (9.0,), trial)
        other.remember(0, 0.8, (9.0,), trial)
    assert one.decide(0, 0.7, (9.1,), 5) is other.decide(0, 0.7, (9.1,), 5) is False
    assert ParetoHalving(4).decide(0, 0.7, (9.1,), 4)
    four = ParetoHalving(4)
    for trial in range(5):
        four.remember(0, 0.8, (9.0,), trial)
    assert four.decide(0, 0.7, (9.1,), 4), "without its own score there are only four"


def test_settings_name_the_stopper_and_its_rungs() -> None:
    assert SearchSettings(steps=2700).rung_steps == (100, 300, 900, 2700)
    assert SearchSettings(steps=10).rung_steps == (1, 3, 10)
    assert SearchSettings(steps=24, rungs=3, eta=1).rung_steps == (8, 16, 24)
    assert SearchSettings(steps=2, rungs=4, eta=1).rung_steps == (1, 2)
    kinds = {"pash": ParetoHalving, "none": NeverStop}
    for name, kind in kinds.items():
        assert type(make_stopper(SearchSettings.model_validate({"stopper": name}))) is kind
    assert make_stopper(SearchSettings(stopper="none")).decide(0, 0.0, (99.0,), 0)
    assert isinstance(make_stopper(SearchSettings()), ParetoHalving)
    with pytest.raises(ValidationError):
        SearchSettings.model_validate({"stopper": "asha"})


def test_runs_of_the_first_release_keep_even_rungs_and_stop_nothing() -> None:
    old = complete_settings({"steps": 400, "batch_size": 2, "rungs": 2, "anchors": []})
    settings = SearchSettings.model_validate_json(json.dumps(old))
    assert settings.rung_steps == (200, 400)
    assert settings.stopper == "none"
