"""What the driver has to know of all trials, kept in memory: a study is slow to read again."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState


def is_stopped(trial: FrozenTrial) -> bool:
    """Say whether the stopper ended the trial at a rung."""
    return trial.state == TrialState.PRUNED and last_rung(trial).get("stop", False) is True


def last_rung(trial: FrozenTrial) -> dict[str, Any]:
    """Return the trial's last recorded rung; empty where it has none."""
    rungs: list[dict[str, Any]] = trial.user_attrs.get("rungs", [])
    return rungs[-1] if rungs else {}


def has_ended(trial: FrozenTrial) -> bool:
    """Say whether the trial counts: trained to the end, stopped, or failed by its own fault."""
    failed = trial.state == TrialState.FAIL and "reason" in trial.user_attrs
    return trial.state == TrialState.COMPLETE or failed or is_stopped(trial)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count."""
    return [trial for trial in study.get_trials(deepcopy=False) if has_ended(trial)]


class Ledger:
    """How many trials have ended, what was drawn, and which networks are trained or being trained.

    A network is known by its hash, and by its parameters, which a release that changes the hash
    leaves as they are.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.num_ended = sum(map(has_ended, trials))
        self._drawn = {_key(t.params) for t in trials if t.params}  # one that waits has none yet
        self._numbers: dict[str, int] = {}
        for trial in trials:
            if "trial_hash" in trial.user_attrs and not _is_lost(trial):
                self.start(trial.user_attrs["trial_hash"], trial.params, trial.number)

    @property
    def num_drawn(self) -> int:
        """Return how many different combinations of parameters were drawn."""
        return len(self._drawn)

    def twin(self, digest: str, params: dict[str, Any]) -> int | None:
        """Return the trial that has this hash, or these parameters."""
        return self._numbers.get(digest, self._numbers.get(_key(params)))

    def draw(self, params: dict[str, Any]) -> None:
        """Note that these parameters were drawn, for better or worse."""
        self._drawn.add(_key(params))

    def start(self, digest: str, params: dict[str, Any], number: int) -> None:
        """Note that the trial trains this network."""
        self._numbers[digest] = self._numbers[_key(params)] = number

    def end(self) -> None:
        """Note that a trial ended."""
        self.num_ended += 1

    def lose(self, digest: str, params: dict[str, Any]) -> None:
        """Note that the trial of this network was lost, and will be gone on with."""
        self._numbers.pop(digest, None)
        self._numbers.pop(_key(params), None)


def _is_lost(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def _key(params: dict[str, Any]) -> str:
    return repr(sorted(params.items()))
