"""What Dice a network will come to: a Gaussian process over the holes and the rungs.

The early rungs of stopped trials are data like the last ones of others.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

Curve = Mapping[int, float]
"""Dice by rung."""
_GROWTH = 1.5
"""By how much the trials must have grown in number before scales are sought again."""
_FEWEST = 4
_LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class _Column:
    """A feature: a number between 0 and 1, or whether a hole has the option."""

    hole: str
    option: Any = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def of(self, params: Mapping[str, Any]) -> float:
        if self.hole not in params:  # it is conditional, and was not drawn
            return 0.0 if self.option is not None else 0.5
        value = params[self.hole]
        if self.option is not None:
            return float(repr(value) == self.option)
        ends = np.array([float(value), self.low, self.high])
        at, low, high = np.log(ends) if self.log else ends
        return float((at - low) / (high - low)) if high > low else 0.5


@dataclass(frozen=True)
class Encoder:
    """Makes features of the values of holes; log10 of a cost, in decades, is one as it stands."""

    columns: tuple[_Column, ...]

    @classmethod
    def of(cls, distributions: Sequence[Mapping[str, BaseDistribution]]) -> "Encoder":
        """Return the encoder of all holes that have been drawn."""
        holes = {name: one for drawn in distributions for name, one in drawn.items()}
        columns = [column for name in sorted(holes) for column in _columns(name, holes[name])]
        return cls(tuple(columns))

    def encode(self, params: Sequence[Mapping[str, Any]], costs: Sequence[float]) -> np.ndarray:
        """Return a row of features each."""
        rows = [[column.of(values) for column in self.columns] for values in params]
        return np.column_stack([np.array(rows).reshape(len(costs), -1), costs])


def _columns(hole: str, distribution: BaseDistribution) -> list[_Column]:
    if not isinstance(distribution, CategoricalDistribution):
        low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
        return [_Column(hole, None, low, high, distribution.log)]  # type: ignore[attr-defined]
    choices = distribution.choices
    if len(choices) > 1 and all(type(choice) in (int, float) for choice in choices):
        numbers = [float(choice) for choice in choices]  # type: ignore[arg-type]
        low, high = min(numbers), max(numbers)
        return [_Column(hole, None, low, high, low > 0)]
    return [_Column(hole, repr(choice)) for choice in choices]


class CurveModel:
    """Fit the process; its scales are sought anew whenever there are half as many trials again.

    So they are those of the first trials, by their number, which a resumed search has too.
    """

    def __init__(self, num_rungs: int) -> None:
        self.num_rungs = num_rungs
        self._scales: dict[tuple[float, ...], Any] = {}

    def fitted(
        self, features: np.ndarray, curves: Sequence[Curve], ended: Sequence[bool]
    ) -> "Predictor":
        """Return what predicts from these trials, which stand in the order of their numbers."""
        over = np.flatnonzero(ended)
        first = over[: _milestone(len(over))]
        kernel = self._kernel(*self._rows(features[first], [curves[index] for index in first]))
        inputs, rungs, dice = self._rows(features, curves)
        return Predictor(kernel, inputs, rungs, dice, self.num_rungs, optimize=False)

    def _rows(
        self, features: np.ndarray, curves: Sequence[Curve]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, rung and Dice of every score."""
        scores = [(i, k, dice) for i, curve in enumerate(curves) for k, dice in curve.items()]
        index, rungs, dice = (np.array(column) for column in zip(*scores, strict=True))
        return features[index.astype(int)], rungs.astype(int), dice

    def _kernel(self, inputs: np.ndarray, rungs: np.ndarray, dice: np.ndarray) -> Any:
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        key = (*inputs.ravel(), *rungs, *dice)
        if key not in self._scales:
            start = ConstantKernel(1.0, (0.05, 20)) * Matern(
                np.ones(inputs.shape[1] + 1), (0.1, 20), nu=2.5
            ) + WhiteKernel(1e-3, (1e-4, 0.3))
            found = Predictor(start, inputs, rungs, dice, self.num_rungs, optimize=True)
            self._scales = {key: found.kernel}
        return self._scales[key]


class Predictor:
    """A fitted process: Dice are in units of their spread at their rung, about its mean."""

    def __init__(
        self,
        kernel: Any,
        inputs: np.ndarray,
        rungs: np.ndarray,
        dice: np.ndarray,
        num_rungs: int,
        *,
        optimize: bool,
    ) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor

        self._last = num_rungs - 1
        self._means = np.zeros(num_rungs)
        self._spreads = np.ones(num_rungs)
        for rung in np.unique(rungs):
            at = dice[rungs == rung]
            self._means[rung], self._spreads[rung] = at.mean(), max(at.std(), _LEAST_SPREAD)
        optimizer = "fmin_l_bfgs_b" if optimize else None
        process = GaussianProcessRegressor(kernel, optimizer=optimizer, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound will do
            process.fit(self._at(inputs, rungs), (dice - self._means[rungs]) / self._spreads[rungs])
        self._process = process

    @property
    def kernel(self) -> Any:
        """Return the kernel with the scales that were found."""
        return self._process.kernel_

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the Dice at the last rung."""
        rungs = np.full(len(features), self._last)
        mean, deviation = self._process.predict(self._at(features, rungs), return_std=True)
        spread = self._spreads[self._last]
        return mean * spread + self._means[self._last], np.maximum(deviation * spread, 1e-4)

    def _at(self, features: np.ndarray, rungs: np.ndarray) -> np.ndarray:
        return np.column_stack([features, rungs / max(self._last, 1)])


def _milestone(count: int) -> int:
    """Return the last of the numbers 4, 6, 9, ... that is not above the count, or the count."""
    found = _FEWEST
    while int(found * _GROWTH) <= count:
        found = int(found * _GROWTH)
    return min(found, count)
