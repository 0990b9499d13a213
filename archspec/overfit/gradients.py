"""Gradients: how much reaches each scan, which parameters get none, where one is not finite."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from blocks.layers.traits import HasDirections

Norms = dict[str, dict[str, float]]


def direction_norms(net: nn.Module) -> Norms:
    """Return, per module with scans, the gradient norm of each direction's own parameters.

    A direction is dead if it is 0: nothing that its scan could learn would change the loss.
    """
    found: Norms = {}
    for path, module in net.named_modules():
        if isinstance(module, HasDirections):
            found[path] = {name: gradient_norm(own) for name, own in module.directions.items()}
    return found


def gradient_norm(module: nn.Module) -> float:
    """Return the Euclidean norm of the gradients of all parameters; a missing one counts as 0."""
    squares = [
        float(parameter.grad.double().square().sum())
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    return math.sqrt(sum(squares))


def without_gradient(net: nn.Module) -> list[str]:
    """Return the names of trainable parameters whose gradient is missing, or 0 in all places."""
    return [
        name
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.any()))
    ]


def where_not_finite(net: nn.Module, image: Tensor) -> str:
    """Say which module first gives something not finite on (B, C, *patch), in one clause.

    Weights are looked at first; the innermost module is named. The forward pass runs once more, so
    random parts (drop path) draw anew.
    """
    for name, parameter in net.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the weights {name} are not finite"
    with _first_output(net) as found, torch.no_grad():
        net(image)
    return found[0] if found else "every module's output is finite, the loss alone is not"


def gradient_not_finite(net: nn.Module) -> str | None:
    """Return the name of the last parameter, which backward reaches first, that has lost it."""
    lost = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return lost[-1] if lost else None


@contextmanager
def _first_output(net: nn.Module) -> Iterator[list[str]]:
    found: list[str] = []

    def watch(path: str) -> Any:
        def look(module: nn.Module, _: Any, output: Any) -> None:
            if not found and not _finite(output):
                place = path or "the network"
                found.append(f"{place} ({type(module).__name__}) is the first with such an output")

        return look

    handles = [module.register_forward_hook(watch(path)) for path, module in net.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _finite(output: Any) -> bool:
    if isinstance(output, Tensor):
        return bool(output.isfinite().all())
    if isinstance(output, list | tuple):
        return all(_finite(part) for part in output)
    return True
