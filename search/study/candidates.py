"""Networks that might be tried next, drawn at random, with what they cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial, FixedTrial

from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from blocks.base import SpecError
from search.space.limits import check_limits
from search.space.space import Space
from search.trials.own import Data

_PER_TRIAL = 8
"""Candidates that come in with every trial of the study."""
_VARIANTS = 2
"""Variants of each network of the front, in one hole, that come in with every trial."""
_MOST = 2000

Price = Callable[[BaseTrial], Mapping[str, float] | None]
"""Draws the network of a trial: its costs by name, None where it is invalid or over a limit."""


@dataclass(frozen=True)
class Candidate:
    """A network by the values of its holes; costs are log10, by name, `flops` among them."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    costs: Mapping[str, float]

    @property
    def flops(self) -> float:
        return self.costs["flops"]

    @property
    def key(self) -> str:
        return self.key_of(self.params)

    @staticmethod
    def key_of(params: Mapping[str, Any]) -> str:
        """Return what tells networks of a space apart."""
        return repr(sorted(params.items()))


class Candidates:
    """The candidates of each trial, made by the seed and the trial's number alone."""

    def __init__(self, price: Price, seed: int) -> None:
        self._price = price
        self._seed = seed
        self._drawn: dict[tuple[int, ...], Candidate | None] = {}

    def at(self, number: int, first: int, front: Sequence[Mapping[str, Any]]) -> list[Candidate]:
        """Return the candidates of the trial with this number, each once: a number of `first` ones,
        those of the trials before, and variants of the front."""
        draws = [(index,) for index in range(min(first + _PER_TRIAL * number, _MOST))]
        found = [self._draw(draw, {}) for draw in draws]
        for member, params in enumerate(front):
            for variant in range(_VARIANTS):
                draw = (number, member, variant)
                names = sorted(params)
                left_out = names[int(self._rng(draw).integers(len(names)))]
                kept = {name: value for name, value in params.items() if name != left_out}
                found.append(self._draw(draw, kept))
        return list({one.key: one for one in found if one is not None}.values())

    def _draw(self, draw: tuple[int, ...], kept: Mapping[str, Any]) -> Candidate | None:
        if draw not in self._drawn:
            trial = _Drawn(kept, self._rng((*draw, 1)))
            costs = self._price(trial)
            logs = {name: math.log10(max(cost, 1)) for name, cost in (costs or {}).items()}
            found = None if costs is None else Candidate(trial.params, trial.distributions, logs)
            self._drawn[draw] = found
        return self._drawn[draw]

    def _rng(self, draw: tuple[int, ...]) -> np.random.Generator:
        return np.random.default_rng([self._seed, *draw])


class _Drawn(FixedTrial):
    """A trial that draws at random what it is not given."""

    def __init__(self, given: Mapping[str, Any], rng: np.random.Generator) -> None:
        self._given = dict(given)
        self._rng = rng
        super().__init__(self._given)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self._give(name, lambda: choices[int(self._rng.integers(len(choices)))])
        return super().suggest_categorical(name, choices)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        def draw() -> int:
            if not log:
                return low + step * int(self._rng.integers((high - low) // step + 1))
            ends = math.log(low - 0.5), math.log(high + 0.5)
            return min(max(round(math.exp(self._rng.uniform(*ends))), low), high)

        self._give(name, draw)
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        def draw() -> float:
            if not log:
                return float(self._rng.uniform(low, high))
            drawn = math.exp(self._rng.uniform(math.log(low), math.log(high)))
            return min(max(drawn, low), high)

        self._give(name, draw)
        return super().suggest_float(name, low, high, step=step, log=log)

    def _give(self, name: str, draw: Callable[[], Any]) -> None:
        if name not in self._given:
            self._given[name] = draw()


def price_of(space: Space, dataset: Data, device: str) -> Price:
    """Return what prices the networks of a space, trained on these data on the device."""
    settings = space.settings
    batch, amp = settings.batch_size, device.startswith("cuda")

    def price(trial: BaseTrial) -> Mapping[str, float] | None:
        try:
            planned = space.draw(trial, dataset.sizes, device=device)
        except SpecError:
            return None
        cost = cost_plan(planned)
        found = check_limits(settings.limits, cost, batch=batch, amp=amp)
        if any(excess.constraint > 0 for excess in found):
            return None
        costs = {"flops": float(cost.flops), "params": float(cost.params)}
        if "memory" in settings.objectives.costs:
            costs["memory"] = float(training_memory(cost.planned, batch=batch, amp=amp).total)
        return costs

    return price
