"""What trials ask of the data they train on, and how they are scored, whoever reads it."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import nn

from archspec.scoring.dice import dice, mean
from archspec.scoring.labels import scored_labels
from archspec.training.step import Batch

CaseScores = dict[str, dict[str, float]]
"""Dice by case, and by class, group and `mean`."""


class Cases(Protocol):
    """Cases that train, validate and test; the test part is opened by `score_cases` alone."""

    validation_cases: list[str]
    test_cases: list[str]

    def batches(self, strides: list[list[int]], *, deep_supervision: bool) -> Iterator[Batch]:
        """Yield augmented patches (B, C, *patch) and targets (B, 1, *patch), one list per output.

        Draws from the global generators of Python, numpy and torch: seed them before.
        """

    def loss(self, strides: list[list[int]], *, deep_supervision: bool, kind: str) -> nn.Module:
        """Return the recipe's loss, with nnU-Net's weights per output under deep supervision."""

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean validation Dice per class and group, and `mean` over the classes."""

    def score_cases(self, net: nn.Module, device: torch.device, cases: list[str]) -> CaseScores:
        """Return Dice by case and class and group, and `mean` over the classes, as `score` does.

        NaN where a class is neither in the case nor predicted.
        """


Predicted = Iterator[tuple[str, NDArray[Any], NDArray[Any]]]
"""Each case with its prediction and its reference, label maps (*grid)."""


def scores_of_all(predicted: Predicted, dataset_json: dict[str, Any]) -> dict[str, float]:
    """Return the mean Dice per class and group, and `mean` over the classes."""
    classes, groups = scored_labels(dataset_json)
    cases = list(scores_by_case(predicted, dataset_json).values())
    scores = {name: mean(case[name] for case in cases) for name in (*classes, *groups)}
    return {"mean": mean(scores[name] for name in classes), **scores}


def scores_by_case(predicted: Predicted, dataset_json: dict[str, Any]) -> CaseScores:
    """Return the scores of every case."""
    return {case: scores_of_case(p, r, dataset_json) for case, p, r in predicted}


def scores_of_case(
    prediction: NDArray[Any], reference: NDArray[Any], dataset_json: dict[str, Any]
) -> dict[str, float]:
    """Return Dice by class and group, and `mean` over the classes.

    NaN where a class is neither in the case nor predicted.
    """
    classes, groups = scored_labels(dataset_json)
    scores = {k: dice(prediction, reference, v) for k, v in {**classes, **groups}.items()}
    return {"mean": mean(scores[name] for name in classes), **scores}
