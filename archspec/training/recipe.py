"""The training recipe of a spec: what search trials, `overfit` and nnU-Net's trainer follow."""

import math
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from torch import nn

from blocks.base import ComponentSpec, Count

POLY_EXPONENT = 0.9
"""nnU-Net's. Source: github.com/MIC-DKFZ/nnUNet, training/lr_scheduler/polylr.py (2.8.1)."""

OF_OPTIMIZERS = ("momentum", "betas")
"""Fields that not every optimizer has."""

Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _none(value: object) -> object:
    return None if value == "none" else value


class TrainingSpec(ComponentSpec):
    """How the network is trained.

    `warmup` is the share of steps with a rising rate. `momentum` belongs to SGD, which is
    Nesterov's, `betas` to the others, and null leaves either out; adam puts the decay into the
    gradient, adamw does not. `epochs` and `iterations` (per epoch) are nnU-Net's; without them its
    trainer's numbers hold, 1000 and 250, and search trials count steps instead. `clip` bounds the
    norm of the gradient; `none` or null leaves it alone. `loss` is made of nnU-Net's own; for
    regions ce is binary.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    schedule: Literal["constant", "poly", "cosine"] = "poly"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    epochs: Count | None = None
    iterations: Count | None = None
    clip: Annotated[Positive | None, BeforeValidator(_none)] = 12.0
    loss: Literal["dice_ce", "dice", "ce"] = "dice_ce"

    @field_validator(*OF_OPTIMIZERS, mode="before")
    @classmethod
    def _left_out(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None
        return cls.model_fields[info.field_name].default if value is None else value

    @field_validator(*OF_OPTIMIZERS)
    @classmethod
    def _belongs(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what the optimizer has not; the default may stand, as it does in plans."""
        assert info.field_name is not None
        default, optimizer = cls.model_fields[info.field_name].default, info.data.get("optimizer")
        if value != default and (optimizer == "sgd") is not (info.field_name == "momentum"):
            raise ValueError(f"must be left out with optimizer {optimizer}")
        return value


def build_optimizer(net: nn.Module, recipe: TrainingSpec) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all parameters."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            net.parameters(),
            recipe.lr,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(net.parameters(), recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def rate(recipe: TrainingSpec, step: int, steps: int) -> float:
    """Return the learning rate of this step, 0 to steps - 1.

    It rises linearly over the warm-up and then follows the schedule towards zero. Without warm-up
    poly gives nnU-Net's own rate at the first step of every epoch.
    """
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    rest = (step - warmup) / max(steps - warmup, 1)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * rest))
    factor: float = (1 - rest) ** POLY_EXPONENT
    return recipe.lr * factor


def set_rate(optimizer: torch.optim.Optimizer, recipe: TrainingSpec, step: int, steps: int) -> None:
    """Give the optimizer the learning rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = rate(recipe, step, steps)


def clip_gradients(net: nn.Module, recipe: TrainingSpec) -> None:
    """Shrink the gradients of all parameters to the recipe's norm, where it has one."""
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
