"""The widest networks of a layout that a budget allows."""

import re
from dataclasses import dataclass

from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from archspec.network.plan import Plan, plan
from archspec.spec.load import load
from archspec.starter.layout import FEATURES, Layout
from blocks.errors import SpecError, argument

_UNITS = {"M": 1e6, "G": 1e9, "T": 1e12}
_MOST = 1e18
_WIDTHS = range(4, 2 * FEATURES + 1, 4)
"""Channels of the first stage: those of attention's stages, and half of them, divide by 4 heads."""


def flops_of(text: str) -> float:
    """Return the FLOPs of '20GFLOPs' or '1.5T'.

    Raises:
        SpecError: not a number with a unit.
    """
    found = re.fullmatch(r"([0-9]+\.?[0-9]*) ?([MGT])(FLOPs?)?", text.strip(), re.IGNORECASE)
    flops = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if not 0 < flops <= _MOST:
        raise SpecError(
            "must be FLOPs of a forward pass such as 20GFLOPs, 800MFLOPs or 1.5TFLOPs",
            where=argument("budget", text),
        )
    return flops


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a network may cost: FLOPs of a forward pass, bytes of a training step under AMP."""

    flops: float | None = None
    memory: int | None = None
    batch: int = 2

    def keeps(self, planned: Plan) -> bool:
        """Say whether the network is within it."""
        if self.flops is not None and cost_plan(planned).flops > self.flops:
            return False
        return self.memory is None or self.needed(planned) <= self.memory

    def needed(self, planned: Plan) -> int:
        """Return the estimated bytes of a training step."""
        return training_memory(planned, batch=self.batch, amp=True).total


def widest(layout: Layout, budget: Budget) -> int:
    """Return the most channels of the first stage with which every mixer keeps the budget.

    Without a budget those of nnU-Net's plans.

    Raises:
        SpecError: the narrowest does not keep it; its costs are told.
    """
    if budget.flops is None and budget.memory is None:
        return FEATURES
    low, high = -1, len(_WIDTHS)
    while high - low > 1:
        middle = (low + high) // 2
        found = _planned(layout, _WIDTHS[middle])
        low, high = (middle, high) if all(map(budget.keeps, found)) else (low, middle)
    if low < 0:
        raise _too_dear(layout, budget)
    return _WIDTHS[low]


def _planned(layout: Layout, features: int) -> list[Plan]:
    specs = (load(layout.spec(features, mixer)) for mixer in layout.mixers)
    return [plan(spec, layout.sizes) for spec in specs]


def _too_dear(layout: Layout, budget: Budget) -> SpecError:
    found = _planned(layout, _WIDTHS[0])
    flops = max(cost_plan(one).flops for one in found)
    needed = max(map(budget.needed, found))
    over = "budget" if budget.flops is not None and flops > budget.flops else "gpu_memory"
    return SpecError(
        f"the cheapest such network costs {flops / 1e9:.3g} GFLOPs, and about "
        f"{needed / 2**30:.2f} GiB in training at batch {budget.batch}: more than `{over}` allows",
        suggestion="allow more, or give a smaller `patch_size`",
    )
