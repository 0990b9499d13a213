"""nnU-Net's own losses, with the parts that a recipe asks for."""

from typing import Any

from torch import Tensor, nn

_WEIGHTS = {"dice_ce": (1, 1), "dice": (1, 0), "ce": (0, 1)}
"""Of Dice and of the cross-entropy, which is binary where regions are trained."""


def build_loss(trainer: Any, kind: str) -> nn.Module:
    """Return the loss that nnU-Net builds for this trainer, with only the parts of `kind`.

    Regions, ignored voxels, the weights per output under deep supervision and compilation are as
    nnU-Net has them. A stand-in for the trainer needs what `nnUNetTrainer._build_loss` reads.
    """
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    loss: Any = nnUNetTrainer._build_loss(trainer)
    wrapped = isinstance(loss, DeepSupervisionWrapper)
    inner = loss.loss if wrapped else loss
    inner.weight_dice, inner.weight_ce = _WEIGHTS[kind]
    if inner.weight_dice == 0:
        inner = _AlwaysTensor(inner)
    if wrapped:
        loss.loss = inner
        inner = loss
    assert isinstance(inner, nn.Module)
    return inner


class _AlwaysTensor(nn.Module):
    """Give backward a graph where nnU-Net returns the number 0: every voxel is to be ignored."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        found = self.loss(logits, target)
        return found if isinstance(found, Tensor) else 0 * logits.float().mean()
