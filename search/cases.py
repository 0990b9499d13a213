"""What trials ask of the data they train on and are scored with, whoever reads it."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn

from search.loading import Batch

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
