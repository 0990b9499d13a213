"""How much gradient reaches each scan direction, and which parameters get none."""

import math

from torch import nn

from blocks.layers.scan_branch import ScanBranch
from blocks.mixers.mamba import MambaMixer
from blocks.mixers.tom import TomMixer
from blocks.scan.orders import FORWARD, REVERSE

Norms = dict[str, dict[str, float]]

_NAMES = {FORWARD: "forward", REVERSE: "reverse"}


def direction_norms(net: nn.Module) -> Norms:
    """Return, per mixer with scans, the gradient norm of each direction's own parameters.

    A direction is dead if it is 0: nothing that its scan could learn would change the loss.
    """
    found: Norms = {}
    for path, module in net.named_modules():
        if isinstance(module, TomMixer):
            names = [str(name) for name in module.order_names]
        elif isinstance(module, MambaMixer):
            names = [_NAMES[order] for order in module.orders]
        else:
            continue
        branches = [branch for branch in module.branches if isinstance(branch, ScanBranch)]
        found[path] = {
            name: gradient_norm(branch) for name, branch in zip(names, branches, strict=True)
        }
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
