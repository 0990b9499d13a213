"""Where numbers stop being finite: in the weights, in a module's output, or in the gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
