"""The mean of a network's weights over its last steps: it tells early how well a training ends."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

DECAY = 0.99
"""What a step leaves of the mean before it: most of that is of the last 100 steps."""
_RISE = 10


def averaged(net: nn.Module) -> AveragedModel:
    """Return the mean of the network's weights, which `update_parameters(net)` takes a step into.

    `module` is a network with them, for inference; its buffers are those of the last step. After
    n steps, the next leaves at most (1 + n) / (10 + n) of the mean: a start is forgotten soon.

    Sources: Polyak and Juditsky 1992, doi:10.1137/0330046 (the mean); TensorFlow's
    ExponentialMovingAverage with `num_updates` (the decay that rises).
    """

    def take(mean: Any, weights: Any, count: Any) -> None:
        steps = int(found.n_averaged)  # on the CPU; a GPU would have to be waited for its copy
        torch._foreach_lerp_(mean, weights, 1 - min(DECAY, (1 + steps) / (_RISE + steps)))

    found = AveragedModel(net, multi_avg_fn=take)
    found.requires_grad_(False)
    return found
