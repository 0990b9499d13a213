"""What a network with several outputs is trained on, without nnU-Net: their targets and loss."""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.nnunet.loss import PART_WEIGHTS, output_scales, output_weights


class OutputsLoss(nn.Module):
    """MONAI's Dice with cross-entropy; outputs are weighed as nnU-Net does."""

    def __init__(self, kind: str, *, batch_dice: bool = False, num_outputs: int) -> None:
        from monai.losses import DiceCELoss

        super().__init__()
        dice, cross_entropy = PART_WEIGHTS[kind]
        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=batch_dice,
            smooth_nr=1e-5,
            smooth_dr=1e-5,
            lambda_dice=dice,
            lambda_ce=cross_entropy,
        )
        self.weights = output_weights(num_outputs)

    def forward(self, logits: Any, target: Any) -> Tensor:
        if isinstance(logits, Tensor):
            logits, target = [logits], [target]
        losses = [
            weight * self.loss(one.float(), wanted.long())
            for weight, one, wanted in zip(self.weights, logits, target, strict=True)
            if weight
        ]
        return torch.stack(losses).sum()


def targets_of_outputs(target: Tensor, strides: list[list[int]]) -> list[Tensor]:
    """Return the labels (B, 1, *patch) at the grid of each output, in their own type."""
    return [_scaled(target.float(), scale).to(target.dtype) for scale in output_scales(strides)]


def _scaled(target: Tensor, scale: list[float]) -> Tensor:
    """Return the target at an output's grid, as nnU-Net takes it there."""
    if all(factor == 1 for factor in scale):
        return target
    size = [round(length * factor) for length, factor in zip(target.shape[2:], scale, strict=True)]
    return nn.functional.interpolate(target, size, mode="nearest-exact")
