"""nnU-Net's own losses, with the parts that a recipe asks for, and the outputs that they weigh.

The private methods of nnU-Net's trainer are used here and by our trainer alone. Source:
github.com/MIC-DKFZ/nnUNet, nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py (2.8.1), `_build_loss`
and `_get_deep_supervision_scales`.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor, nn

PART_WEIGHTS = {"dice_ce": (1.0, 1.0), "dice": (1.0, 0.0), "ce": (0.0, 1.0)}
"""Of Dice and of the cross-entropy, which is binary where regions are trained."""


def build_loss(trainer: Any, kind: str) -> nn.Module:
    """Return the loss that nnU-Net builds for this trainer, with only the parts of `kind`.

    Regions, ignored voxels, the weights per output under deep supervision and compilation are as
    nnU-Net has them.
    """
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    loss: Any = nnUNetTrainer._build_loss(trainer)
    wrapped = isinstance(loss, DeepSupervisionWrapper)
    inner = loss.loss if wrapped else loss
    inner.weight_dice, inner.weight_ce = PART_WEIGHTS[kind]
    if inner.weight_dice == 0:
        inner = _AlwaysTensor(inner)
    if wrapped:
        loss.loss = inner
        inner = loss
    assert isinstance(inner, nn.Module)
    return inner


def loss_without_trainer(
    *,
    has_regions: bool,
    ignore_label: int | None,
    batch_dice: bool,
    num_outputs: int | None,
    kind: str = "dice_ce",
) -> nn.Module:
    """Return the loss as `build_loss` does, where there is no trainer: one makes a results folder.

    It takes the lists of `num_outputs` logits and targets, or one of each where that is None.
    """
    labels = SimpleNamespace(has_regions=has_regions, ignore_label=ignore_label)
    stand_in = SimpleNamespace(
        label_manager=labels,
        configuration_manager=SimpleNamespace(batch_dice=batch_dice),
        is_ddp=False,
        enable_deep_supervision=num_outputs is not None,
        _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: [None] * (num_outputs or 0),
    )
    return build_loss(stand_in, kind)


def output_weights(count: int) -> list[float]:
    """Return nnU-Net's weights of outputs, fine to coarse: the coarsest of several counts nothing.

    For what must know them without nnU-Net, or beside its loss.
    """
    weights = [0.5**index for index in range(count)]
    if count > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]


def output_scales(strides: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return each output's scale against the patch, as nnU-Net derives it from plans."""
    scales: list[list[float]] = (1 / np.cumprod(np.vstack(strides), axis=0))[:-1].tolist()
    return scales


class _AlwaysTensor(nn.Module):
    """Give backward a graph where nnU-Net returns the number 0: every voxel is to be ignored."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        found = self.loss(logits, target)
        return found if isinstance(found, Tensor) else 0 * logits.float().mean()
