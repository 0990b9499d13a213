"""What trials ask of the data they train on, and how they are scored, whoever reads it."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from archspec.scoring.dice import dice, mean
from archspec.scoring.labels import scored_labels
from archspec.training.step import Batch
from blocks.base import Grid
from search.trials.outputs import OutputsLoss, targets_of_outputs

CaseScores = dict[str, dict[str, float]]
"""Dice by case, and by class, group and `mean`."""


class TrialCases(Protocol):
    """Cases that train, validate and test; the test part is opened by `score_cases` alone."""

    validation_cases: list[str]
    test_cases: list[str]

    @abstractmethod
    def batches(self, strides: list[list[int]], *, deep_supervision: bool) -> Iterator[Batch]:
        """Yield augmented patches (B, C, *patch) and targets (B, 1, *patch), one list per output.

        Draws from the global generators of Python, numpy and torch: seed them before.
        """

    @abstractmethod
    def loss(self, strides: list[list[int]], *, deep_supervision: bool, kind: str) -> nn.Module:
        """Return the recipe's loss, with nnU-Net's weights per output under deep supervision."""

    @abstractmethod
    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean validation Dice per class and group, and `mean` over the classes."""

    @abstractmethod
    def score_cases(self, net: nn.Module, device: torch.device, cases: list[str]) -> CaseScores:
        """Return Dice by case and class and group, and `mean` over the classes, as `score` does.

        NaN where a class is neither in the case nor predicted.
        """


class Cases(TrialCases, Protocol):
    """Cases of your own, for `search.run(space, cases=...)` in place of nnU-Net's dataset.

    A subclass writes `batches` and `score_cases`, and sets what has no value here: the names of the
    cases that validate and test (none may), and what every network is made for: `patch_size`
    (voxels), `batch_size`, `in_channels`, `num_classes`, and `spacing` (mm) where it is known.
    `classes` are the labels 1, 2, ... by name. `loss` and `score` may be others.

    Worker processes get the object pickled, or make it themselves where `cases` is a function
    without arguments (a class, a `functools.partial`) that returns it. `name`, sizes, the names of
    the cases and `fingerprint`, which may say what else the data are, a version or a checksum, are
    kept with the run, which goes on with the same only.

    A batch is to depend on the state of the global generators alone, not on how many came before:
    a run that is gone on with draws them again.
    """

    name: str
    in_channels: int
    num_classes: int
    patch_size: Grid
    batch_size: int
    classes: Sequence[str]
    spacing: tuple[float, ...] | None = None
    fingerprint: str = ""

    def loss(self, strides: list[list[int]], *, deep_supervision: bool, kind: str) -> nn.Module:
        """Return Dice and cross-entropy as nnU-Net has them, but for a constant."""
        return OutputsLoss(kind, num_outputs=len(strides) - 1 if deep_supervision else 1)

    def targets(
        self, target: Tensor, strides: list[list[int]], *, deep_supervision: bool
    ) -> Tensor | list[Tensor]:
        """Return labels (B, 1, *patch) as `batches` yields them: of several outputs, a list."""
        return targets_of_outputs(target, strides) if deep_supervision else target

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean of `score_cases` over the validation cases."""
        cases = self.score_cases(net, device, self.validation_cases).values()
        scores = {name: mean(case[name] for case in cases) for name in self.classes}
        return {"mean": mean(scores.values()), **scores}

    def dice(self, prediction: NDArray[Any], reference: NDArray[Any]) -> dict[str, float]:
        """Return the scores of a case by its label maps."""
        found = {n: dice(prediction, reference, (i,)) for i, n in enumerate(self.classes, start=1)}
        return {"mean": mean(found.values()), **found}


class Predicted(NamedTuple):
    """A case with its prediction and its reference, label maps (*grid), and its image (C, *grid).

    Voxels of the reference that are `ignore` are not judged.
    """

    case: str
    prediction: NDArray[Any]
    reference: NDArray[Any]
    image: NDArray[Any] | None = None
    ignore: int | None = None


@runtime_checkable
class ShownCases(Protocol):
    """Cases that hand over what was predicted, so that it can be shown, beside its scores."""

    @abstractmethod
    def predicted(
        self, net: nn.Module, device: torch.device, names: list[str]
    ) -> Iterator[Predicted]:
        """Yield the cases one after the other."""

    @abstractmethod
    def scores_of(self, one: Predicted) -> dict[str, float]:
        """Return the scores that `score_cases` gives the case."""


def scores_of_all(
    predicted: Iterable[tuple[Any, ...]], dataset_json: dict[str, Any]
) -> dict[str, float]:
    """Return the mean Dice per class and group, and `mean` over the classes."""
    classes, groups = scored_labels(dataset_json)
    cases = list(scores_by_case(predicted, dataset_json).values())
    scores = {name: mean(case[name] for case in cases) for name in (*classes, *groups)}
    return {"mean": mean(scores[name] for name in classes), **scores}


def scores_by_case(
    predicted: Iterable[tuple[Any, ...]], dataset_json: dict[str, Any]
) -> CaseScores:
    """Return the scores of every case, given as `Predicted`."""
    return {case: scores_of_case(p, r, dataset_json) for case, p, r, *_ in predicted}


def scores_of_case(
    prediction: NDArray[Any], reference: NDArray[Any], dataset_json: dict[str, Any]
) -> dict[str, float]:
    """Return Dice by class and group, and `mean` over the classes.

    NaN where a class is neither in the case nor predicted.
    """
    classes, groups = scored_labels(dataset_json)
    scores = {k: dice(prediction, reference, v) for k, v in {**classes, **groups}.items()}
    return {"mean": mean(scores[name] for name in classes), **scores}
