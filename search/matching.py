"""Widths that give candidates one cost, so that what is compared is the mixer and not the size."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from optuna.trial import BaseTrial
from pydantic import Field, field_validator, model_validator

from archspec.costs.flops import cost_plan
from archspec.network.plan import Plan, plan
from archspec.spec.load import SpecLike, load, validate
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import NodePath, Source, dotted
from blocks.base import ComponentSpec, Count, Grid, SpecError
from search.holes import Hole, Value

Measure = Callable[[Plan], float]

_LARGEST_SCALE = 64.0
_MAX_TRIED = 3000
"""How many combinations of widths around the common scale are listed at most."""


class Budgets(ComponentSpec):
    """Multiply-adds to choose from: a hole, so that a front has more than one cost."""

    choice: tuple[float, ...]


class MatchSpec(ComponentSpec):
    """What all candidates cost: multiply-adds of a forward pass, or seconds of a training step.

    `macs` may be a choice, which a space draws like any hole, under the name `search.match.macs`.
    `widths` are the nodes that are scaled, by one factor as far as rounding to multiples of
    `multiple` allows; `*` stands for every entry of a list. A node that a candidate does not have
    is left out. `tolerance` is the share by which a candidate may miss. `latency` is the median
    of `repeats` forward and backward passes of `batch_size` patches, in seconds of wall time.
    """

    macs: float | Budgets | None = None
    latency: Annotated[float, Field(gt=0)] | None = None
    widths: Annotated[tuple[str, ...], Field(min_length=1)] = ("encoder.stages.*.width",)
    multiple: Count = 4
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.03
    batch_size: Count = 2
    repeats: Count = 5

    @field_validator("macs", mode="before")
    @classmethod
    def _check_macs(cls, value: object) -> object:
        """Refuse in one message what is neither of the two."""
        if value is None or isinstance(value, Budgets) or _is_positive(value):
            return value
        several = value["choice"] if isinstance(value, dict) and set(value) == {"choice"} else ()
        numbers = isinstance(several, list | tuple) and several and all(map(_is_positive, several))
        if not numbers or len(set(several)) < len(several):
            raise ValueError(
                "must be a positive number of multiply-adds, or a choice of different ones such "
                f"as {{choice: [20e6, 40e6]}}, got {value!r}"
            )
        return Budgets(choice=tuple(map(float, several)))

    @model_validator(mode="after")
    def _one_target(self) -> "MatchSpec":
        if (self.macs is None) == (self.latency is None):
            raise ValueError("give one of macs and latency")
        return self

    @property
    def target(self) -> float:
        value = self.latency if self.macs is None else self.macs
        assert isinstance(value, float), "one of several budgets must be drawn first"
        return value

    @property
    def budget(self) -> Hole | None:
        """Return the hole that a choice of budgets is."""
        if not isinstance(self.macs, Budgets):
            return None
        return Hole("search.match.macs", "choice", self.macs.choice)

    def drawn(self, trial: BaseTrial) -> "MatchSpec":
        """Return this with one budget: the only one, or the one drawn."""
        return self if self.budget is None else self.at(self.budget.suggest(trial))

    def at(self, macs: Value) -> "MatchSpec":
        return self.model_copy(update={"macs": macs})


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True)
class _Found:
    """Widths that were tried, what they cost, and how far they leave a common scale."""

    widths: tuple[int, ...]
    cost: float
    spec: ArchSpec

    def miss(self, target: float) -> float:
        return abs(self.cost / target - 1)


def match_spec(
    spec: Source | SpecLike,
    target: MatchSpec,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
    device: str = "cpu",
) -> ArchSpec:
    """Return the spec with its widths scaled to the target's cost.

    Of the widths within the tolerance, the first found is taken in the order of how little they
    change the widths' ratios.

    Raises:
        SpecError: the spec is wrong, no node has the name of a width, or no widths come near
            enough; the message names the nearest.
    """
    loaded = validate(spec) if isinstance(spec, Source) else load(spec)
    tree = loaded.tree()
    paths = [
        path for pattern in target.widths for path in nodes_at(tree, tuple(pattern.split(".")))
    ]
    base = [value_at(tree, path) for path in paths]
    if not paths:
        raise SpecError(f"match.widths: {', '.join(target.widths)} names no width of {loaded.name}")
    tried: dict[tuple[int, ...], _Found] = {}
    measure = _measure(target, device)

    def cost(widths: tuple[int, ...]) -> _Found:
        if widths not in tried:
            changed = tree
            for path, width in zip(paths, widths, strict=True):
                changed = with_value(changed, path, width)
            candidate = load(changed)
            planned = plan(
                candidate,
                in_channels=in_channels,
                num_classes=num_classes,
                patch_size=patch_size,
            )
            tried[widths] = _Found(widths, measure(planned), candidate)
        return tried[widths]

    scale = _scale(base, target, cost)
    for widths in _around(base, scale, target.multiple):
        if _hopeless(widths, tried.values(), target):
            continue
        found = cost(widths)
        if found.miss(target.target) <= target.tolerance:
            return found.spec
    nearest = min(tried.values(), key=lambda found: found.miss(target.target))
    names = ", ".join(
        f"{dotted(path)}={width}" for path, width in zip(paths, nearest.widths, strict=True)
    )
    unit, shown = ("MACs", f"{nearest.cost:,.0f}")
    if target.macs is None:
        unit, shown = ("seconds", f"{nearest.cost:.4f}")
    raise SpecError(
        f"match: no widths of {loaded.name} in multiples of {target.multiple} cost "
        f"{target.target:,.10g} {unit} within {100 * target.tolerance:g} %; nearest: {names} with "
        f"{shown}"
    )


def step_seconds(planned: Plan, *, batch_size: int, repeats: int, device: str = "cpu") -> float:
    """Return the median wall time in seconds of forward and backward, after two to warm up."""
    import torch

    from archspec.network.build import build_plan

    net = build_plan(planned).to(device)
    x = torch.randn(batch_size, planned.in_channels, *planned.patch_size, device=device)
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        net(x).square().mean().backward()
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def _measure(target: MatchSpec, device: str) -> Measure:
    if target.macs is not None:
        return lambda planned: float(cost_plan(planned).macs)
    return lambda planned: step_seconds(
        planned, batch_size=target.batch_size, repeats=target.repeats, device=device
    )


def _scale(base: list[int], target: MatchSpec, cost: Callable[[tuple[int, ...]], _Found]) -> float:
    """Return the factor at which the rounded widths first cost at least the target."""
    low, high = 1 / _LARGEST_SCALE, 1.0
    while high < _LARGEST_SCALE and cost(_rounded(base, high, target)).cost < target.target:
        low, high = high, 2 * high
    while high > low and cost(_rounded(base, high / 2, target)).cost >= target.target:
        high /= 2
        low = high / 2
        if high <= 1 / _LARGEST_SCALE:
            return high
    low = max(low, high / 2)
    while _rounded(base, low, target) != _rounded(base, high, target) and high / low > 1.002:
        middle = math.sqrt(low * high)
        if cost(_rounded(base, middle, target)).cost < target.target:
            low = middle
        else:
            high = middle
    return high


def _rounded(base: list[int], scale: float, target: MatchSpec) -> tuple[int, ...]:
    step = target.multiple
    return tuple(max(round(width * scale / step), 1) * step for width in base)


def _hopeless(widths: tuple[int, ...], tried: Iterable[_Found], target: MatchSpec) -> bool:
    """Say whether a wider one was too cheap already, or a narrower one too dear."""
    for found in tried:
        pairs = list(zip(widths, found.widths, strict=True))
        if found.cost < target.target * (1 - target.tolerance):
            if all(width <= other for width, other in pairs):
                return True
        elif found.cost > target.target * (1 + target.tolerance) and all(
            width >= other for width, other in pairs
        ):
            return True
    return False


def _around(base: list[int], scale: float, step: int) -> Iterator[tuple[int, ...]]:
    """Yield rounded widths near the scale, those nearest to the base's ratios first."""
    most = max((int(_MAX_TRIED ** (1 / len(base))) - 1) // 2, 1)
    options = []
    for width in base:
        middle = round(width * scale / step)
        away = min(max(middle // 2, 1), most)
        options.append([n * step for n in range(max(middle - away, 1), middle + away + 1)])

    def distortion(widths: tuple[int, ...]) -> float:
        return sum(
            math.log(width / (old * scale)) ** 2 for width, old in zip(widths, base, strict=True)
        )

    yield from sorted(product(*options), key=distortion)


def nodes_at(tree: Any, pattern: tuple[str, ...], done: NodePath = ()) -> list[NodePath]:
    """Return the paths of the numbers that a pattern names; `*` is every entry of a list."""
    if not pattern:
        return [done] if isinstance(tree, int) else []
    key, rest = pattern[0], pattern[1:]
    if isinstance(tree, list | tuple):
        entries: list[tuple[str | int, Any]] = [
            (i, item) for i, item in enumerate(tree) if key in ("*", str(i))
        ]
    else:
        entries = [(key, tree[key])] if isinstance(tree, dict) and key in tree else []
    return [path for name, item in entries for path in nodes_at(item, rest, (*done, name))]


def value_at(tree: Any, path: NodePath) -> int:
    """Return the number there."""
    for key in path:
        tree = tree[key]
    assert isinstance(tree, int)
    return tree


def with_value(tree: Any, path: NodePath, value: int) -> Any:
    """Return a copy of the tree with one node replaced."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(tree, list):
        return [with_value(item, rest, value) if i == key else item for i, item in enumerate(tree)]
    return {**tree, key: with_value(tree[key], rest, value)}
