"""What a trial survives: losses of its whole place, which judge it not, and those of its worker."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.study.loop import SearchLoop, trial_seed
from search.trials.engine import PLACE_LOSSES
from search.trials.train import TrialTask
from search.trials.worker import Message

MakeLoop = Callable[..., SearchLoop]

SEED = trial_seed(7, 0)
"""Of the first trial, and of all that go on with it."""


@pytest.fixture
def losing(fakes: SimpleNamespace) -> Callable[[list[str]], Any]:
    """Return a function that makes a pool in which the first trial is lost so, one after the other.

    Each time it is before its first rung.
    """

    def make(losses: list[str]) -> Any:
        left = list(losses)

        class LosingPool(fakes.FakePool):  # type: ignore[misc, name-defined]
            def submit(self, task: TrialTask) -> None:
                super().submit(task)
                if task.seed == SEED and left:
                    is_place = (what := left.pop(0)) == "place"
                    told = Message(task.number, "lost", reason=f"{what} gone", place_lost=is_place)
                    self.fate[task.number] = told

        return LosingPool()

    return make


@pytest.fixture
def one_anchor(space_tree: dict[str, Any]) -> dict[str, Any]:
    """Return a space whose queue holds one network, which so is the next whenever it is lost."""
    return {**space_tree, "search": {**space_tree["search"], "anchors": [{}]}}


def lives(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the first trial and all that went on with it."""
    return [trial for trial in study.trials if trial.user_attrs.get("seed") == SEED]


def test_a_trial_outlives_five_places_and_the_death_of_a_worker_at_one_rung(
    study: optuna.Study,
    make_loop: MakeLoop,
    losing: Callable[[list[str]], Any],
    one_anchor: dict[str, Any],
) -> None:
    losses = ["place", "place", "worker", "place", "place", "place"]
    make_loop(study, 1, one_anchor).drive(losing(losses))
    *lost, last = lives(study)
    assert [t.user_attrs["lost"] for t in lost] == [f"{what} gone" for what in losses]
    assert last.state == TrialState.COMPLETE
    assert last.user_attrs["places_lost"] == losses.count("place") == PLACE_LOSSES
    assert last.user_attrs["origin"] == 0


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (["place"] * (PLACE_LOSSES + 1), f"place gone, as {PLACE_LOSSES} times before"),
        (["worker", "place", "place", "worker"], "worker gone, and so before"),
    ],
    ids=["places", "workers"],
)
def test_what_is_one_loss_too_many_ends_the_trial(
    study: optuna.Study,
    make_loop: MakeLoop,
    losing: Callable[[list[str]], Any],
    one_anchor: dict[str, Any],
    losses: list[str],
    reason: str,
) -> None:
    """A place that is gone in between does not make a worker's second death the first."""
    make_loop(study, 1, one_anchor).drive(losing(losses))
    *lost, last = lives(study)
    assert len(lost) == len(losses) - 1
    assert last.state == TrialState.FAIL and last.user_attrs["reason"] == reason
