"""What a killed search left behind: trials to finish, and trials to go on with."""

import socket
import warnings
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from blocks.base import SpecError
from search.study.end import End
from search.study.storage import GRACE, queued_params, set_attribute
from search.study.trial_record import TrialRecord, end_of


def recover(study: optuna.Study, *, alone: bool = False) -> None:
    """End every RUNNING trial, and queue again those that had not come to an end of their own.

    The caller holds the lock on the run folder, so a trial that runs on this machine is lost. One
    of another machine, where locks may not be seen, is lost when its heartbeat is stale; or at once
    where the caller is `alone`: it holds a lock that every machine sees.

    Raises:
        SpecError: a driver lives on another machine.
    """
    if not alone:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)  # nothing where a storage has no heartbeat
    trials = study.get_trials(deepcopy=False)
    records = {trial.number: TrialRecord.of(trial) for trial in trials}
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in running:
        host = records[trial.number].host
        if not alone and host not in (None, this_host()):
            raise SpecError(
                f"trial {trial.number} runs on {host}, which gave a sign of life within {GRACE} s",
                suggestion="stop the search there, or wait until it is given up",
            )
    queued = {record.resumed_from for record in records.values()}
    for trial in trials:
        # failed as stale, then killed before it was queued
        if end_of(trial) is End.LOST and trial.number not in queued:
            queue_again(study, trial)
    for trial in running:
        end = records[trial.number].end
        if end is None or not (end.pruned or end is End.FAILED):
            end = End.LOST
        # queued before it is told: a kill in between loses nothing and queues nothing twice
        if end is End.LOST and trial.number not in queued:
            queue_again(study, trial)
        set_attribute(study, trial, "end", end.value)
        study.tell(trial.number, state=TrialState.PRUNED if end.pruned else TrialState.FAIL)


def queue_again(
    study: optuna.Study,
    lost: FrozenTrial,
    *,
    retried_at: int | None = None,
    places_lost: int | None = None,
) -> None:
    """Queue the lost trial's parameters, to be gone on with from its last checkpoint."""
    # killed before it drew its parameters, an anchor has them as fixed ones only
    params = {**(queued_params(lost) or {}), **lost.params}
    heir = TrialRecord.of(lost).heir(lost.number)
    if retried_at is not None:
        heir = replace(heir, retried_at=retried_at)
    if places_lost is not None:
        heir = replace(heir, places_lost=places_lost)
    study.enqueue_trial(params, user_attrs=heir.attributes())


def place_among_drawn(study: optuna.Study, number: int) -> int:
    """Return the number that the trial would have if nothing had been lost before it."""
    trials = study.get_trials(deepcopy=False)[:number]
    return number - sum(TrialRecord.of(trial).resumed_from is not None for trial in trials)


def this_host() -> str:
    return socket.gethostname()
