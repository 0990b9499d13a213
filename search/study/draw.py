"""Draw the next network: valid, not yet tried, and within the limits; the others are told so."""

import math
from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from archspec.costs.flops import Cost, cost_plan
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError
from search.space.limits import check_limits
from search.space.space import Space
from search.study.end import End
from search.study.generators import keep_state, set_state, state_of
from search.study.ledger import Ledger
from search.study.trial_record import TrialRecord, write
from search.trials.own import Data

_MAX_REPEATS = 100
_MAX_DRAWS = 1000
"""Draws in a row that give nothing to train, before the space is taken for used up."""

Emit = Callable[[str, int, str], None]


class Drawing:
    """Ask Optuna for networks that train on the device; on CUDA that is under AMP."""

    def __init__(self, space: Space, dataset: Data, study: optuna.Study, device: str) -> None:
        self.space = space
        self.dataset = dataset
        self.study = study
        self.device = device
        self.size = space.size()
        self._over: dict[str, int] = {}  # arch_hash over the limits -> its first trial
        self._cheapest = math.inf  # FLOPs of those

    def draw(self, ledger: Ledger, emit: Emit) -> tuple[optuna.Trial, ArchSpec, Cost, str] | None:
        """Return a trial, its spec and cost, and its hash; None where nothing is left to draw."""
        repeats, over, mistake = 0, 0, ""
        while repeats < _MAX_REPEATS and repeats + over < _MAX_DRAWS and not self._used_up(ledger):
            stands = state_of(self.study.sampler)
            trial = self.study.ask()
            goes_on = TrialRecord.of(trial).resumed_from is not None
            try:
                planned = self.space.draw(trial, self.dataset.sizes, device=self.device)
            except SpecError as error:
                repeats, mistake = repeats + 1, error.line
                ledger.draw(trial)
                self._reject(trial, TrialRecord(end=End.INVALID, rejected=f"invalid: {error.line}"))
                continue
            ledger.draw(trial)
            spec = planned.spec
            key = trial_hash(spec)
            twin = ledger.twin(key, trial)
            if twin is not None:
                repeats += 1
                told = f"same network and recipe as trial {twin}"
                self._reject(trial, TrialRecord(end=End.REPEATED, twin=twin, rejected=told))
                continue
            cost = cost_plan(planned)
            network = arch_hash(spec)
            known = network in self._over
            if not self._exceeds(trial, network, cost, emit):
                if goes_on:  # nothing is drawn, whatever the sampler made of it
                    set_state(self.study.sampler, stands)
                else:
                    keep_state(self.study)
                return trial, spec, cost, key
            repeats, over = repeats + known, over + (not known)
        why = f"{over} draws over the limits, {repeats} known or invalid"
        if self._used_up(ledger):
            why = f"every one of the {self.size.combinations:,} combinations was drawn"
        if self._over:
            why += f"; the cheapest over a limit has {self._cheapest / 1e9:.3g} GFLOPs"
        if mistake:
            why += f"; the last that was invalid: {mistake}"
        emit("note", -1, f"stopped early, nothing new to train: {why}")
        return None

    def _used_up(self, ledger: Ledger) -> bool:
        """Say whether every combination was drawn, and none is queued to be gone on with."""
        if self.size.ranges or ledger.num_drawn < self.size.combinations:
            return False
        return not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _exceeds(self, trial: optuna.Trial, network: str, cost: Cost, emit: Emit) -> bool:
        """Tell Optuna how the network stands to the limits; reject it where it exceeds one.

        A network that was refused before is refused without a word.
        """
        settings = self.space.settings
        amp = self.device.startswith("cuda")
        found = check_limits(settings.limits, cost, batch=settings.batch_size, amp=amp)
        for excess in found:
            trial.set_constraint(excess.name, excess.constraint)
        over = tuple(excess for excess in found if excess.constraint > 0)
        if over:
            told = "; ".join(excess.text for excess in over)
            self._reject(
                trial,
                TrialRecord(
                    flops=cost.flops,
                    params=cost.params,
                    over=over,
                    rejected=told,
                    end=End.OVER_LIMIT,
                ),
            )
            self._cheapest = min(self._cheapest, cost.flops)
            if self._over.setdefault(network, trial.number) == trial.number:
                emit("rejected", trial.number, f"not trained: {told}")
        return bool(over)

    def _reject(self, trial: optuna.Trial, told: TrialRecord) -> None:
        write(trial, told)
        self.study.tell(trial, state=TrialState.PRUNED)
