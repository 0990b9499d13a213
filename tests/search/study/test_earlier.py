"""What earlier releases wrote in words: why a trial ended, and what it was over."""

from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from search.space.limits import Excess
from search.study.earlier import excesses_in_words, flops_of_constraints
from search.study.end import End
from search.study.trial_record import TrialRecord, end_of

FAIL, PRUNED = TrialState.FAIL, TrialState.PRUNED
STOP = {"step": 9, "scores": {"mean": 0.4}, "loss": 1.0, "seconds": 3.0, "stop": True}
OVER = "20.000 GFLOPs, over the limit of 2"


@pytest.mark.parametrize(
    ("state", "attributes", "end"),
    [
        (FAIL, {"reason": "loss is nan at step 3"}, End.FAILED),
        (FAIL, {"lost": "worker ended with code -9"}, End.LOST),
        (FAIL, {"seed": 3}, End.LOST),
        (PRUNED, {"rungs": [STOP]}, End.STOPPED),
        (PRUNED, {"rejected": OVER}, End.OVER_LIMIT),
        (PRUNED, {"rejected": "invalid: stages[1]: grid (5, 5) must divide"}, End.INVALID),
        (PRUNED, {"rejected": "invalid: it is over the limit"}, End.INVALID),
        (PRUNED, {"rejected": "same network and recipe as trial 1"}, End.REPEATED),
    ],
)
def test_an_end_in_words_is_read(state: TrialState, attributes: dict[str, Any], end: End) -> None:
    trial = create_trial(state=state, user_attrs=attributes)
    assert end_of(trial) is end
    over = TrialRecord.of(trial).over
    assert over == ((Excess("gflops", 20.0, 2.0),) if end is End.OVER_LIMIT else ())


def test_a_constraint_that_is_not_kept_tells_the_end_too() -> None:
    trial = create_trial(
        state=PRUNED,
        user_attrs={"rejected": "too big"},
        system_attrs={"constraints:gflops": 1.0, "constraints:params": -1.0},
    )
    assert end_of(trial) is End.OVER_LIMIT
    assert flops_of_constraints(trial.constraints, 2) == 20e9
    assert flops_of_constraints(trial.constraints, None) is None
    assert flops_of_constraints({}, 2) is None


@pytest.mark.parametrize(
    "over",
    [
        (Excess("gflops", 0.326, 0.15),),
        (Excess("gflops", 1.25, 1e-06), Excess("params", 3_000_000, 2e6)),
        (Excess("params", 61_234, 50_000.0),),
        (Excess("memory", 13.25e9, "11.5 GiB"),),
    ],
)
def test_an_excess_is_read_as_it_was_told(over: tuple[Excess, ...]) -> None:
    found = excesses_in_words("; ".join(one.text for one in over))
    assert found == over
    assert [one.kind for one in found] == [one.kind for one in over]
    assert all(one.constraint > 0 for one in found)


def test_words_that_tell_no_excess_give_none() -> None:
    assert excesses_in_words("same network; 3 parsecs, over the limit of 2; no, no") == ()
