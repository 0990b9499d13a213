"""Widths that give candidates one cost, so that what is compared is the mixer and not the size."""

import heapq
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan, plan
from archspec.spec.load import SpecLike, load, validate
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import node_at, with_node
from archspec.spec.yaml_file import Source, dotted
from blocks.base import SpecError
from search.space.scale import width_paths
from search.space.settings import MatchSpec

Measure = Callable[[Plan], float]

_LARGEST_SCALE = 64.0
_MAX_TRIED = 3000
"""How many combinations of widths around the common scale are tried at most."""
_SLACK = 1.1
"""By how much a cost may leave the square of its widths' ratio: some sizes are rounded."""
_LEAST_AWAY = 16
"""Multiples around the common scale that are tried of a narrow width, where half of it is few."""


@dataclass(frozen=True)
class _Found:
    """Widths that were tried, and what they cost: nothing where no network has them."""

    widths: tuple[int, ...]
    cost: float
    spec: ArchSpec

    def miss(self, target: float) -> float:
        return abs(self.cost / target - 1)


def match_spec(
    spec: Source | SpecLike,
    target: MatchSpec,
    sizes: InputSizes = OF_SPEC,
    *,
    device: str = "cpu",
) -> ArchSpec:
    """Return the spec with its widths scaled to the target's cost, as it is planned at the sizes.

    Of the widths within the tolerance, the first found is taken in the order of how little they
    change the widths' ratios.

    Raises:
        SpecError: the spec is wrong, no node has the name of a width, or no widths come near
            enough; the message names the nearest.
    """
    loaded = validate(spec) if isinstance(spec, Source) else load(spec)
    target = target.for_patch(sizes.patch_size or loaded.patch_size)
    tree = loaded.tree()
    paths = width_paths(tree, target.widths)
    base = [node_at(tree, path) for path in paths]
    if not paths:
        raise SpecError(
            f"{', '.join(target.widths)} names no width of {loaded.name}", field="match.widths"
        )
    tried: dict[tuple[int, ...], _Found] = {}
    measure = _measure(target, device)

    def cost(widths: tuple[int, ...]) -> _Found:
        if widths not in tried:
            changed = tree
            for path, width in zip(paths, widths, strict=True):
                changed = with_node(changed, path, width)
            try:
                planned = plan(load(changed), sizes)
                tried[widths] = _Found(widths, measure(planned), planned.spec)
            except SpecError:
                if not tried:  # the widths as they are written
                    raise
                tried[widths] = _Found(widths, 0.0, loaded)  # too narrow for one of its parts
        return tried[widths]

    scale = _scale(base, target, cost)
    for widths in _around(base, scale, target.multiple):
        if _hopeless(widths, tried.values(), target):
            continue
        found = cost(widths)
        if found.miss(target.target) <= target.tolerance:
            return found.spec
    networks = [found for found in tried.values() if found.cost]
    nearest = min(networks, key=lambda found: found.miss(target.target))
    names = ", ".join(
        f"{dotted(path)}={width}" for path, width in zip(paths, nearest.widths, strict=True)
    )
    unit, shown = ("MACs", f"{nearest.cost:,.0f}")
    if target.macs is None:
        unit, shown = ("seconds", f"{nearest.cost:.4f}")
    raise SpecError(
        f"no widths of {loaded.name} in multiples of {target.multiple} cost {target.target:,.10g} "
        f"{unit} within {100 * target.tolerance:g} %",
        field="match",
        suggestion=f"nearest: {names} with {shown}",
    )


def step_seconds(planned: Plan, *, batch_size: int, repeats: int, device: str = "cpu") -> float:
    """Return the median wall time in seconds of forward and backward, after two to warm up.

    In the precision that trials train in.
    """
    import torch

    from archspec.network.build import build_plan
    from archspec.training.devices import timed_convolutions
    from archspec.training.step import autocast_dtype

    net = build_plan(planned).to(device)
    x = torch.randn(batch_size, planned.in_channels, *planned.patch_size, device=device)
    dtype = autocast_dtype(x.device)
    times = []
    with timed_convolutions(x.device):
        for _ in range(repeats + 2):
            started = time.perf_counter()
            with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
                loss = net(x).square().mean()
            loss.backward()
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
    """Say whether these are too cheap, or too dear, by what was tried.

    A wider network costs no less, and no part of it more than the square of the largest ratio.
    """
    least = target.target * (1 - target.tolerance)
    most = target.target * (1 + target.tolerance)
    for found in tried:
        ratios = [width / other for width, other in zip(widths, found.widths, strict=True)]
        wider, narrower = max(ratios), min(ratios)
        if 0 < found.cost < least:
            if wider <= 1 or found.cost * _SLACK * wider**2 < least:
                return True
        elif found.cost > most and (narrower >= 1 or found.cost * narrower**2 > most * _SLACK):
            return True
    return False


def _around(base: list[int], scale: float, step: int) -> Iterator[tuple[int, ...]]:
    """Yield rounded widths near the scale, those nearest to the base's ratios first.

    At most `_MAX_TRIED`. What is not reached is never made, so the number of widths costs little.
    """
    most = max((int(_MAX_TRIED ** (1 / len(base))) - 1) // 2, 1)
    options: list[list[tuple[float, int]]] = []  # per width, by how far it leaves the scale
    for old in base:
        middle = round(old * scale / step)
        away = min(max(middle // 2, _LEAST_AWAY), most)
        widths = [n * step for n in range(max(middle - away, 1), middle + away + 1)]
        options.append(sorted((math.log(width / (old * scale)) ** 2, width) for width in widths))

    def entry(ranks: tuple[int, ...]) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
        chosen = [own[rank] for own, rank in zip(options, ranks, strict=True)]
        return sum(far for far, _ in chosen), tuple(width for _, width in chosen), ranks

    nearest = [entry((0,) * len(base))]
    for _ in range(_MAX_TRIED):
        if not nearest:
            return
        _, found, ranks = heapq.heappop(nearest)
        yield found
        # only at the last axis that moved or behind it: each combination is reached once
        moved = max((axis for axis, rank in enumerate(ranks) if rank), default=0)
        for axis in range(moved, len(base)):
            if ranks[axis] + 1 < len(options[axis]):
                further = (*ranks[:axis], ranks[axis] + 1, *ranks[axis + 1 :])
                heapq.heappush(nearest, entry(further))
