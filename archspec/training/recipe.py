"""The training recipe of a spec: what search trials, `overfit` and nnU-Net's trainer follow."""

import math
from typing import Any, assert_never

import torch
from torch import nn

from archspec.spec.training import TrainingSpec
from blocks.layers.traits import SparesFromDecay

POLY_EXPONENT = 0.9
"""nnU-Net's. Source: github.com/MIC-DKFZ/nnUNet, training/lr_scheduler/polylr.py (2.8.1)."""


def build_optimizer(net: nn.Module, recipe: TrainingSpec) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all parameters, in groups where not all of them decay."""
    lr, decay, weights = recipe.lr, recipe.weight_decay, _parameters(net, recipe)
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(
                weights, lr, momentum=recipe.momentum, nesterov=True, weight_decay=decay
            )
        case "adam":
            return torch.optim.Adam(weights, lr, betas=recipe.betas, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(weights, lr, betas=recipe.betas, weight_decay=decay)
    assert_never(recipe.optimizer)


def _parameters(net: nn.Module, recipe: TrainingSpec) -> Any:
    """Return what decays as PyTorch's optimizers take it.

    Under `matrices` timm's function leaves out biases and all vectors: norms, layer scales, `D`. It
    is told of `A_log`, which has two axes and is no matrix, by name, as timm's models tell it.
    """
    if recipe.decay == "all":
        return net.parameters()
    from timm.optim import param_groups_weight_decay  # here, because importing timm takes seconds

    spared = {
        f"{path}.{name}".lstrip(".")
        for path, module in net.named_modules()
        if isinstance(module, SparesFromDecay)
        for name in module.spared_from_decay
    }
    return param_groups_weight_decay(net, recipe.weight_decay, no_weight_decay_list=spared)


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
