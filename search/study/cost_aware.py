"""A sampler that knows what a network costs before it is trained, and only guesses its Dice.

Expected improvement per second (Snoek et al., "Practical Bayesian optimization of machine learning
algorithms", 2012), of the dominated hypervolume in place of one value: with exact costs its
expectation over Dice has a closed form. All that it knows is read from the study at every draw.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.optimize import nnls
from scipy.stats import norm

from search.space.objectives import Objectives
from search.space.references import reference_of
from search.space.samplers import CostAwareSpec
from search.study.candidates import Candidate, Candidates, Price
from search.study.curve_model import CurveModel, Encoder
from search.study.end import End
from search.study.storage import queued_params
from search.study.trial_record import TrialRecord, end_of

_BEYOND = 0.04
"""How far behind the costliest candidate the reference of the hypervolume lies, in log10."""


class CostAwareSampler(BaseSampler):
    """Propose the candidate with the largest expected gain in hypervolume per predicted second.

    `price` gives the costs of the network that a trial draws, `steps` are those of the rungs.
    """

    def __init__(
        self,
        options: CostAwareSpec,
        price: Price,
        objectives: Objectives,
        steps: Sequence[int],
        seed: int,
    ) -> None:
        self.options = options
        self.objectives = objectives
        self.steps = tuple(steps)
        self.seed = seed
        self._candidates = Candidates(price, seed)
        self._model = CurveModel(len(steps))
        self._independent = RandomSampler(seed=seed)
        self._chosen: Candidate | None = None

    def reseed_rng(self) -> None:
        self._independent.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        queued = queued_params(trial) is not None
        self._chosen = None if queued else self._choose(study, trial.number)
        return {} if self._chosen is None else dict(self._chosen.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {} if self._chosen is None else dict(self._chosen.params)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, distribution)

    def _choose(self, study: optuna.Study, number: int) -> Candidate | None:
        """Return the network of the trial with this number; None where no candidate is new."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != number]
        own = [one for trial in trials if (one := _Tried.of(trial, self.steps)) is not None]
        front = [trial for trial in study.best_trials if trial.params]
        pool = self._candidates.at(
            number,
            self.options.candidates,
            [trial.params for trial in sorted(front, key=lambda t: t.number)],
        )
        tried = {Candidate.key_of(trial.params) for trial in trials}
        new = [candidate for candidate in pool if candidate.key not in tried]
        if not new:
            return None
        costs = self._costs(new, own)
        seconds = _seconds([one.flops for one in new], own)
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        seen = np.array([trial.values[1:] for trial in done]).reshape(len(done), costs.shape[1])
        reference = np.vstack([costs, seen]).max(0) + _BEYOND
        if len(own) < self.options.n_startup_trials or not any(one.final for one in own):
            room = np.prod(reference - costs, axis=1) / seconds
            weights = room**2
            rng = np.random.default_rng([self.seed, number])
            return new[rng.choice(len(new), p=weights / weights.sum())]
        encoder = Encoder.of([one.distributions for one in (*new, *own)])
        known = encoder.encode([one.params for one in own], [one.flops for one in own])
        asked = encoder.encode([one.params for one in new], [one.flops for one in new])
        model = self._model.fitted(known, [one.curve for one in own], [one.ended for one in own])
        values = np.array([trial.values[0] for trial in done])
        pending = [index for index, one in enumerate(own) if not one.ended]
        if pending:  # taken to come out as predicted, so that workers spread
            at = self._costs([own[index] for index in pending], own)
            seen = np.vstack([seen, at])
            values = np.append(values, model.predict(known[pending])[0])
        mean, deviation = model.predict(asked)
        gain = expected_gain(mean, deviation, costs, seen, values, reference)
        return new[int(np.argmax(gain / seconds))]

    def _costs(self, candidates: Sequence[Candidate], own: "Sequence[_Tried]") -> np.ndarray:
        """Return the objectives that hold against the candidates, a row each."""
        columns = []
        for name in self.objectives.costs:
            if name == "latency":
                columns.append(_latencies([one.flops for one in candidates], own))
            else:
                columns.append(np.array([c.costs[name] for c in candidates]))
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _Tried(Candidate):
    """A network of the space that trains, or has: its Dice by rung, and whether that is all."""

    curve: Mapping[int, float]
    final: bool
    ended: bool
    step_seconds: float | None
    latency: float | None

    @classmethod
    def of(cls, trial: FrozenTrial, steps: Sequence[int]) -> "_Tried | None":
        """Return what is known of a trial; None where it tells nothing of the space."""
        record = TrialRecord.of(trial)
        end = end_of(trial)
        if not trial.params or reference_of(trial) is not None or record.flops is None:
            return None
        if end not in (None, End.COMPLETED, End.STOPPED):
            return None
        known = {"flops": record.flops, "params": record.params, "memory": record.memory}
        curve = {
            steps.index(rung.step): rung.dice for rung in record.rungs if rung.step in steps[:-1]
        }
        final = trial.state == TrialState.COMPLETE
        if final:
            curve[len(steps) - 1] = trial.values[0]
        last = record.last
        return cls(
            trial.params,
            trial.distributions,
            {name: float(np.log10(max(cost, 1))) for name, cost in known.items() if cost},
            {rung: dice for rung, dice in curve.items() if np.isfinite(dice)},
            final,
            end is not None,
            last.seconds / last.step if last is not None and last.seconds > 0 else None,
            record.calibrated,
        )


def expected_gain(
    mean: np.ndarray,
    deviation: np.ndarray,
    costs: np.ndarray,
    front_costs: np.ndarray,
    front_dice: np.ndarray,
    reference: np.ndarray,
) -> np.ndarray:
    """Return the expected growth of the hypervolume by each candidate of normal Dice, known costs.

    The costs that a candidate covers fall into cells, in each of which the Dice to beat is that of
    the best point with lower costs. The reference's Dice is the lowest of the points.
    """
    gain = np.zeros(len(mean))
    edges = [
        np.array([-np.inf, *np.unique(front_costs[:, axis]), reference[axis]])
        for axis in range(costs.shape[1])
    ]
    lowest = front_dice.min()
    for cell in itertools.product(*(range(len(axis) - 1) for axis in edges)):
        low = np.array([axis[index] for axis, index in zip(edges, cell, strict=True)])
        high = np.array([axis[index + 1] for axis, index in zip(edges, cell, strict=True)])
        below = front_dice[(front_costs <= low).all(1)]
        level = max(below.max(initial=lowest), lowest)
        size = np.clip(high - np.maximum(costs, low), 0, None).prod(axis=1)
        lead = (mean - level) / deviation
        gain += size * deviation * (lead * norm.cdf(lead) + norm.pdf(lead))
    return gain


def _seconds(flops: Sequence[float], own: Sequence[_Tried]) -> np.ndarray:
    """Return what trainings of networks of these log10 FLOPs take, in any unit.

    By a line through the measured seconds of a step, both of whose parts are positive; all alike
    while fewer than three are measured.
    """
    measured = [(10**one.flops, one.step_seconds) for one in own if one.step_seconds is not None]
    if len(measured) < 3:
        return np.ones(len(flops))
    sizes, took = np.array(measured).T
    unit = sizes.mean()
    (fixed, slope), _ = nnls(np.stack([np.ones(len(sizes)), sizes / unit], axis=1), took)
    found: np.ndarray = fixed + slope * 10 ** np.array(flops) / unit
    least: np.ndarray = np.maximum(found, took.min() / 10)
    return least


def _latencies(flops: Sequence[float], own: Sequence[_Tried]) -> np.ndarray:
    """Return log10 of predicted latencies, by a line in log10 FLOPs through the measured ones."""
    measured = [(one.flops, np.log10(one.latency)) for one in own if one.latency]
    if not measured:
        return np.array(flops)
    sizes, found = np.array(measured).T
    spread = sizes - sizes.mean()
    slope = 1.0 if len(sizes) < 4 else float(spread @ found / max(spread @ spread, 1e-9))
    line: np.ndarray = found.mean() + np.clip(slope, 0, 2) * (np.array(flops) - sizes.mean())
    return line
