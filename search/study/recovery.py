"""What a killed search left behind: trials to finish, and trials to go on with."""

import socket
import warnings
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from blocks.base import SpecError
from search.space.anchors import ANCHOR_SPEC
from search.study.ledger import last_rung
from search.study.storage import GRACE, queued_params


def recover(study: optuna.Study) -> None:
    """End every RUNNING trial, and queue again those that had not come to an end of their own.

    The caller holds the lock on the run folder, so a trial that runs on this machine is lost. One
    of another machine, where locks may not be seen, is lost when its heartbeat is stale.

    Raises:
        SpecError: a driver lives on another machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # nothing where a storage has no heartbeat
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in running:
        host = trial.user_attrs.get("host", this_host())
        if host != this_host():
            raise SpecError(
                f"trial {trial.number} runs on {host}, which gave a sign of life within "
                f"{GRACE} s; stop the search there, or wait until it is given up"
            )
    queued = {trial.user_attrs.get("resumed_from") for trial in trials}
    for trial in trials:
        lost = trial.state == TrialState.FAIL and "reason" not in trial.user_attrs
        if lost and trial.number not in queued:  # failed as stale, then killed before it was queued
            queue_again(study, trial)
    for trial in running:
        if "rejected" in trial.user_attrs or last_rung(trial).get("stop"):
            study.tell(trial.number, state=TrialState.PRUNED)
            continue
        # queued before it is told: a kill in between loses nothing and queues nothing twice
        if "reason" not in trial.user_attrs and trial.number not in queued:
            queue_again(study, trial)
        study.tell(trial.number, state=TrialState.FAIL)


def queue_again(study: optuna.Study, lost: FrozenTrial, **attributes: Any) -> None:
    """Queue the lost trial's parameters, to be gone on with from its last checkpoint."""
    # killed before it drew its parameters, an anchor has them as fixed ones only
    params = {**(queued_params(lost) or {}), **lost.params}
    names = ("seed", "rungs", "retried_at", ANCHOR_SPEC)
    kept: dict[str, Any] = {n: lost.user_attrs[n] for n in names if n in lost.user_attrs}
    origin = lost.user_attrs.get("origin", lost.number)
    study.enqueue_trial(
        params,
        user_attrs={**kept, **attributes, "resumed_from": lost.number, "origin": origin},
    )


def this_host() -> str:
    return socket.gethostname()
