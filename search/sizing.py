"""How many networks a space holds."""

from dataclasses import dataclass
from typing import Any

from search.holes import hole_kind, parse_hole


@dataclass(frozen=True)
class SpaceSize:
    """Combinations of the discrete holes; `ranges` is the most continuous ones in any of them.

    A named hole that stands only inside members may be counted more than once.
    """

    combinations: int
    ranges: int

    def text(self) -> str:
        """Return both in words."""
        plural = "s" * (self.ranges > 1)
        rest = f", times {self.ranges} continuous range{plural}" if self.ranges else ""
        return f"{self.combinations:,} combinations{rest}"


def size_of(tree: Any) -> SpaceSize:
    """Return the size of a space's raw tree."""
    return SpaceSize(*_count(tree, "", frozenset()))


def _count(node: Any, path: str, known: frozenset[str]) -> tuple[int, int]:
    """Return the combinations of a node and its continuous ranges; `known` holes count no more."""
    if isinstance(node, tuple):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return 1, 0
    hole = parse_hole("", path, node)
    if hole is not None and hole.name in known:
        return 1, 0
    if hole is not None and hole.kind != "choice":
        count = hole.num_values()
        return (1, 1) if count is None else (count, 0)
    if hole is not None:
        members = [_count(member, f"{path}.", known | {hole.name}) for member in node["choice"]]
        return sum(count for count, _ in members), max(ranges for _, ranges in members)
    combinations, ranges = 1, 0
    for key, item in node.items():
        count, more = _count(item, f"{path}.{key}", known)
        combinations, ranges = combinations * count, ranges + more
        known |= _names(item)
    return combinations, ranges


def _names(node: Any) -> frozenset[str]:
    """Return the own names of holes that always exist at or below the node."""
    if isinstance(node, tuple):
        return frozenset().union(*map(_names, node))
    if not isinstance(node, dict):
        return frozenset()
    if hole_kind(node) is not None:
        return frozenset([node["name"]] if "name" in node else [])
    return frozenset().union(*map(_names, node.values()))
