"""What is too big to train: limits on FLOPs, parameters and memory, told to Optuna."""

import math
from dataclasses import dataclass

from archspec.costs.fit import memory_size
from archspec.costs.flops import Cost
from archspec.costs.memory import training_memory
from search.space.settings import LimitSettings


@dataclass(frozen=True)
class Excess:
    """How a network stands to one limit: `constraint` is at most 0 where it is kept."""

    name: str
    constraint: float
    text: str


def check_limits(limits: LimitSettings, cost: Cost, *, batch: int, amp: bool) -> list[Excess]:
    """Return how the network stands to every limit that is set.

    A constraint is log10 of the value over its limit, so that twice too much counts alike for all.
    Memory, which takes another trace, is asked for only where the other limits are kept.
    """
    found = []
    if limits.gflops is not None:
        gflops = cost.flops / 1e9
        found.append(_excess("gflops", gflops, limits.gflops, f"{gflops:.3f} GFLOPs"))
    if limits.params is not None:
        found.append(_excess("params", cost.params, limits.params, f"{cost.params:,} parameters"))
    if limits.memory is not None and all(one.constraint <= 0 for one in found):
        needed = training_memory(cost.planned, batch=batch, amp=amp).total
        text = f"{needed / 1e9:.2f} GB of memory by estimate"
        found.append(_excess("memory", needed, memory_size(limits.memory), text, limits.memory))
    return found


def _excess(name: str, value: float, limit: float, text: str, shown: str | None = None) -> Excess:
    constraint = math.log10(max(value, 1e-9) / limit)
    return Excess(name, constraint, f"{text}, over the limit of {shown or f'{limit:,g}'}")
