"""The sampler of a study: Optuna's, kept from what it cannot learn from, or ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from blocks.errors import Place, SpecError
from search.space.objectives import Objectives
from search.space.references import reference_of
from search.space.samplers import CostAwareSpec, SamplerSpec
from search.space.space import Space
from search.study.candidates import Price, price_of
from search.study.cost_aware import CostAwareSampler
from search.study.end import End
from search.study.generators import go_on
from search.study.storage import quiet, showing
from search.study.trial_record import TrialRecord
from search.trials.own import Data

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Packages that are installed by another name."""


@dataclass(frozen=True)
class Priced:
    """What the networks of a space cost, what they are held against, and the steps of the rungs."""

    price: Price
    objectives: Objectives
    steps: tuple[int, ...]

    @classmethod
    def of(cls, space: Space, dataset: Data, device: str) -> "Priced":
        price = price_of(space, dataset, device)
        return cls(price, space.settings.objectives, space.settings.rung_steps)


def set_sampler(
    study: optuna.Study, sampler: SamplerSpec, seed: int, priced: Priced | None = None
) -> None:
    """Give the study its sampler, which goes on where one of the same kind stood.

    One that follows another kind draws by the seed and the number of trials so far; so does one in
    a run of an earlier release, which kept no state. `priced` is what ours has to know of a space.
    """
    if isinstance(sampler, CostAwareSpec):
        assert priced is not None, "without costs it is not itself"
        study.sampler = CostAwareSampler(
            sampler, priced.price, priced.objectives, priced.steps, seed
        )
        return
    with quiet():
        made = sampler.make(seed + len(study.get_trials(deepcopy=False)))
    if sampler.models_shared_holes:
        made = OfSpace(made, study, repeats_itself=sampler.repeats_itself)
    go_on(study, made)
    study.sampler = made


def check_packages(sampler: SamplerSpec, where: Place) -> None:
    """Refuse a sampler whose packages are not installed.

    Raises:
        SpecError: see above.
    """
    missing = sampler.missing()
    if missing:
        missing = tuple(_DISTRIBUTIONS.get(name, name) for name in missing)
        names = " and ".join(missing)
        raise SpecError(
            f"the sampler {sampler.kind} needs {names}, not installed here",
            where=where,
            field="search.sampler",
            suggestion=f"pip install {' '.join(missing)}, or take tpe, which needs nothing more",
        )


class OfSpace(BaseSampler):
    """A sampler that models what every trial drew, shown those of the space's own networks alone.

    An anchor that names a network has no values for the holes: with it among the trials there is
    no hole that every trial drew, and all would be random from then on. Where the sampler
    `repeats_itself`, the draw after a network that was refused is random.
    """

    def __init__(self, sampler: BaseSampler, study: optuna.Study, *, repeats_itself: bool) -> None:
        self.sampler = sampler
        self.repeats_itself = repeats_itself
        self._own = showing(study, lambda trial: reference_of(trial) is None)
        self._repeated = False

    def reseed_rng(self) -> None:
        self.sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self._repeated:
            return {}
        return self.sampler.infer_relative_search_space(self._own, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.sampler.sample_relative(self._own, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any
    ) -> Any:
        return self.sampler.sample_independent(self._own, trial, param_name, distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(self._own, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        end = TrialRecord.of(trial).end
        self._repeated = self.repeats_itself and end in (End.REPEATED, End.OVER_LIMIT, End.INVALID)
        self.sampler.after_trial(self._own, trial, state, values)
