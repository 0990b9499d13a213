"""What an earlier run found, to be tried first in this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from blocks.errors import SpecError
from search.pareto import non_dominated
from search.space.holes import Hole, Value
from search.space.references import reference_of
from search.space.space import Space
from search.study.storage import open_run


@dataclass(frozen=True)
class Taken:
    """Values of a network of an earlier run's front; `text` says which, for people."""

    params: dict[str, Any]
    text: str


def taken_from(folder: Path, space: Space) -> tuple[Taken, ...]:
    """Return the front of the run, cheapest first, for the holes of this space.

    Networks that anchors named are left out, they are the space's to name. They are queued and
    trained, and not added as finished trials: a Dice of other data, steps or seeds would stand on
    this front beside those that were measured here.

    Raises:
        SpecError: no run there, none of its trials has finished, or the front has a value that no
            hole of the space takes.
    """
    study, _ = open_run(folder)
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        raise SpecError("no trial has finished yet", where=folder)
    holes, found = {hole.name: hole for hole in space.holes()}, []
    for index in non_dominated([(trial.values[1:], trial.values[0]) for trial in done]):
        trial = done[index]
        if reference_of(trial) is not None:
            continue
        for name, value in trial.params.items():
            if name not in holes or not _takes(holes[name], value):
                raise SpecError(
                    f"its trial {trial.number} has {name} {value}, which no hole of {space.name} "
                    "takes",
                    where=folder,
                    suggestion="give a run of the same space",
                )
        found.append(Taken(dict(trial.params), f"{folder}, trial {trial.number}"))
    return tuple(found)


def _takes(hole: Hole, value: Value) -> bool:
    if hole.kind == "choice":
        return value in hole.options
    low, high = hole.options
    assert isinstance(low, int | float) and isinstance(high, int | float)
    return isinstance(value, int | float) and low <= value <= high
