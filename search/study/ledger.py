"""What the driver has to know of all trials, kept in memory: a study is slow to read again."""

from collections.abc import Callable, Sequence

import optuna
from optuna.trial import BaseTrial, FrozenTrial

from search.space.references import reference_of
from search.study.end import End
from search.study.trial_record import TrialRecord, end_of

AnyTrial = BaseTrial | FrozenTrial


def has_ended(trial: FrozenTrial) -> bool:
    """Say whether the trial counts: trained to the end, stopped, or failed by its own fault."""
    end = end_of(trial)
    return end is not None and end.counts


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count."""
    return [trial for trial in study.get_trials(deepcopy=False) if has_ended(trial)]


class Ledger:
    """How many trials have ended, what was drawn, and which networks are trained or being trained.

    A network is known by its hash, and by what was drawn for it, which a release that changes the
    hash leaves as it is: its parameters, and a network that it trains in place of what they fill.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        hash_of: Callable[[FrozenTrial, str], str] = lambda trial, stored: stored,
    ) -> None:
        self.num_ended = sum(map(has_ended, trials))
        self._drawn: set[str] = set()
        self._numbers: dict[str, int] = {}
        for trial in trials:
            if trial.params:  # one that waits has none yet
                self.draw(trial)
            stored = TrialRecord.of(trial).trial_hash
            if stored is not None and end_of(trial) is not End.LOST:
                self.start(hash_of(trial, stored), trial)

    @property
    def num_drawn(self) -> int:
        """Return how many different combinations of parameters were drawn."""
        return len(self._drawn)

    def twin(self, digest: str, trial: AnyTrial) -> int | None:
        """Return the trial that has this hash, or for which the same was drawn as for this one."""
        return self._numbers.get(digest, self._numbers.get(_key(trial)))

    def draw(self, trial: AnyTrial) -> None:
        """Note that the trial's parameters were drawn, for better or worse."""
        if reference_of(trial) is None:  # another network is none of the space's combinations
            self._drawn.add(_key(trial))

    def start(self, digest: str, trial: AnyTrial) -> None:
        """Note that the trial trains the network with this hash."""
        self._numbers[digest] = self._numbers[_key(trial)] = trial.number

    def end(self) -> None:
        """Note that a trial ended."""
        self.num_ended += 1

    def lose(self, digest: str, trial: AnyTrial) -> None:
        """Note that the trial of this network was lost, and will be gone on with."""
        self._numbers.pop(digest, None)
        self._numbers.pop(_key(trial), None)


def _key(trial: AnyTrial) -> str:
    return repr((reference_of(trial), sorted(trial.params.items())))
