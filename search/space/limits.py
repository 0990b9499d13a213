"""What is too big to train: limits on FLOPs, parameters and memory, told to Optuna."""

import math
from dataclasses import dataclass

from archspec.costs.fit import memory_size
from archspec.costs.flops import Cost
from archspec.costs.memory import training_memory
from search.space.settings import LimitSettings

UNITS = {"gflops": "GFLOPs", "params": "parameters", "memory": "GB of memory by estimate"}
"""What is limited, by the names of the limits."""


@dataclass(frozen=True)
class Excess:
    """How a network stands to one limit, which is as the settings give it: of memory a size.

    `value` is in GFLOPs, parameters or bytes.
    """

    name: str
    value: float
    limit: float | str

    @property
    def constraint(self) -> float:
        """Return log10 of the value over its limit, at most 0 where it is kept.

        So twice too much counts alike for all limits.
        """
        limit = memory_size(self.limit) if isinstance(self.limit, str) else self.limit
        return math.log10(max(self.value, 1e-9) / limit)

    @property
    def text(self) -> str:
        """Return the value and its limit."""
        return f"{self._value} {self._unit}, {self._over}"

    @property
    def kind(self) -> str:
        """Return the limit alone, which all networks over it share."""
        return f"{self._unit} {self._over}"

    @property
    def _value(self) -> str:
        if self.name == "gflops":
            return f"{self.value:.3f}"
        return f"{self.value / 1e9:.2f}" if self.name == "memory" else f"{self.value:,}"

    @property
    def _unit(self) -> str:
        return UNITS.get(self.name, self.name)  # a later release may limit more

    @property
    def _over(self) -> str:
        limit = self.limit if isinstance(self.limit, str) else f"{self.limit:,g}"
        return f"over the limit of {limit}"


def check_limits(limits: LimitSettings, cost: Cost, *, batch: int, amp: bool) -> list[Excess]:
    """Return how the network stands to every limit that is set.

    Memory, which takes another trace, is asked for only where the other limits are kept.
    """
    found = []
    if limits.gflops is not None:
        found.append(Excess("gflops", cost.flops / 1e9, limits.gflops))
    if limits.params is not None:
        found.append(Excess("params", cost.params, limits.params))
    if limits.memory is not None and all(one.constraint <= 0 for one in found):
        needed = training_memory(cost.planned, batch=batch, amp=amp).total
        found.append(Excess("memory", needed, limits.memory))
    return found
