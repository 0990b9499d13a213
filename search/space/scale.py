"""Widths scaled down by one factor until a network keeps the limits of a search."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from archspec.network.plan import Plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import node_at, paths_at, split_path, walk, with_node
from archspec.spec.yaml_file import NodePath
from blocks.base import SpecError

WIDTHS = ("encoder.stages.*.width", "decoder.width", "decoder.bottleneck_width")
_GRAINS = (4, 8, 24)
"""What divides a width and one of these goes on dividing it; the first is taken that norms (groups
of 8) and rotary embeddings (6 channels for three axes) of the network allow."""
_STEPS = 256


def width_paths(tree: Any, names: Iterable[str]) -> list[NodePath]:
    """Return the paths of the numbers that the names mean, see `paths_at`."""
    paths = [path for name in names for path in paths_at(tree, split_path(name))]
    return [path for path in paths if type(node_at(tree, path)) is int]


def scale_down(
    spec: ArchSpec, plan_at: Callable[[ArchSpec], Plan], keeps: Callable[[Plan], bool]
) -> Plan:
    """Return the plan with the widest widths, at most the spec's own, that `keeps` takes.

    Widths are a 256th of the spec's own apart, and rounded down to what heads and norms divide. The
    narrowest plan comes back where none is taken, and the plan itself where nothing is a width, as
    in a library's network.

    Raises:
        SpecError: the spec, or all that is narrower, cannot be planned.
    """
    whole = plan_at(spec)
    if keeps(whole) or not width_paths(spec.tree(), WIDTHS):
        return whole
    for grain in _GRAINS:
        try:
            return _narrower(spec, grain, plan_at, keeps)
        except SpecError:
            if grain == _GRAINS[-1]:
                raise
    raise AssertionError("no grains")


def _narrower(
    spec: ArchSpec,
    grain: int,
    plan_at: Callable[[ArchSpec], Plan],
    keeps: Callable[[Plan], bool],
) -> Plan:
    tree = {**spec.tree(), "title": ""}  # a title may state the size
    paths = width_paths(tree, WIDTHS)

    def scaled(step: int) -> Plan:
        changed = tree
        for path in paths:
            changed = with_node(changed, path, _width(tree, path, step, grain))
        return plan_at(load(changed))

    low, high, best = 1, _STEPS, scaled(1)
    while high - low > 1:
        middle = (low + high) // 2
        planned = scaled(middle)
        if keeps(planned):
            low, best = middle, planned
        else:
            high = middle
    return best


def _width(tree: Any, path: NodePath, step: int, grain: int) -> int:
    """Return the width at this step, a multiple of what it has to divide by."""
    width: int = node_at(tree, path)
    grain = math.gcd(width, grain)
    if path[0] == "encoder":
        grain = math.lcm(grain, *_heads(node_at(tree, path[:-1])))
    return max(width * step // _STEPS // grain, 1) * grain


def _heads(tree: Any) -> Iterator[int]:
    """Yield the numbers of heads of everything in a stage."""
    for path, node in walk(tree):
        if path[-1:] == ("num_heads",):
            yield node
