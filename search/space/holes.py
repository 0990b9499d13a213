"""Holes: the nodes of a search space that are left open."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from optuna.trial import BaseTrial

from archspec.spec.tree import children, thawed, walk
from archspec.spec.words import listed, shown
from archspec.spec.yaml_file import NodePath
from blocks.base import SpecError
from blocks.errors import digits

MAX_MEMBERS = 1000
"""Members of one choice."""

Value = str | int | float | bool | None
_KEYS = {
    "choice": {"choice", "name"},
    "int": {"int", "step", "log", "name"},
    "float": {"float", "log", "name"},
}


@dataclass(frozen=True)
class Hole:
    """One open choice. `options` are labels of a choice, or the two ends of a range."""

    name: str
    kind: str
    options: tuple[Value, ...]
    step: int | None = None
    log: bool = False

    def suggest(self, trial: BaseTrial) -> Value:
        """Draw a value."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.options)
        low, high = self.options
        if self.kind == "int":
            assert isinstance(low, int) and isinstance(high, int)
            return trial.suggest_int(self.name, low, high, step=self.step or 1, log=self.log)
        assert isinstance(low, int | float) and isinstance(high, int | float)
        return trial.suggest_float(self.name, low, high, log=self.log)

    @property
    def shown(self) -> str:
        """Return the options as a list, of many the first ones and their number."""
        return f"[{listed([shown(option) for option in self.options])}]"

    def num_values(self) -> int | None:
        """Return how many values there are; None for a continuous range."""
        if self.kind == "choice":
            return len(self.options)
        if self.kind == "float":
            return None
        low, high = self.options
        assert isinstance(low, int) and isinstance(high, int)
        return (high - low) // (self.step or 1) + 1


def hole_kind(node: dict[str, Any]) -> str | None:
    """Return choice, int or float where the mapping declares a hole, None for plain data."""
    kind = next((kind for kind in _KEYS if kind in node), None)
    return kind if kind is not None and set(node) <= _KEYS[kind] else None


def parse_hole(position: str, name: str, node: dict[str, Any]) -> Hole | None:
    """Return the hole that the mapping declares, or None where it is plain data.

    It is named by its path, unless it has a name of its own.
    """
    kind = hole_kind(node)
    if kind is None:
        return None
    value, path = node[kind], name.rstrip(".")
    name = node.get("name", path)
    where = f"{position}{path}"
    log = node.get("log", False)
    if not isinstance(log, bool):
        raise SpecError(f"{where}: log must be true or false")
    if kind == "choice":
        if not isinstance(value, tuple) or not value:
            raise SpecError(f"{where}: choice needs a list with at least one member")
        if len(value) > MAX_MEMBERS:
            raise SpecError(
                f"{where}: choice has {len(value)} members", allowed=f"at most {MAX_MEMBERS}"
            )
        labels = tuple(_labels(value))
        if len(set(labels)) != len(labels):
            raise SpecError(f"{where}: choice has equal members; each must differ")
        return Hole(name, kind, labels)
    number = int if kind == "int" else int | float
    numbers = isinstance(value, tuple) and len(value) == 2
    if not numbers or not all(isinstance(n, number) and not isinstance(n, bool) for n in value):
        raise SpecError(f"{where}: {kind} needs two numbers, [low, high]")
    low, high = value
    step = node.get("step")
    if step is not None and (not isinstance(step, int) or step < 1 or (high - low) % step or log):
        raise SpecError(f"{where}: step must divide high - low, and cannot go with log")
    if low > high or (log and low <= 0):
        raise SpecError(f"{where}: low <= high must hold (and low > 0 with log), got {[low, high]}")
    return Hole(name, kind, (low, high), step, log)


def _labels(members: tuple[Any, ...]) -> Iterator[Value]:
    """Return one word per member: scalars as they are, components by kind, others as YAML."""
    kinds = [m.get("kind") if isinstance(m, dict) else None for m in members]
    known = Counter(kind for kind in kinds if isinstance(kind, str))
    for member, kind in zip(members, kinds, strict=True):
        if not isinstance(member, dict | tuple):
            yield member
        elif isinstance(kind, str) and known[kind] == 1:
            yield kind
        else:
            yield yaml.safe_dump(thawed(member), default_flow_style=True, width=10_000).strip()


def holes_in(tree: Any) -> Iterator[tuple[NodePath, dict[str, Any]]]:
    """Yield every hole with its path in the text, those inside members of choices included."""
    for path, node in walk(tree):
        if isinstance(node, dict) and hole_kind(node) is not None:
            yield path, node


def has_hole(tree: Any) -> bool:
    return next(holes_in(tree), None) is not None


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
        count = self.combinations
        return f"{f'{count:,}' if count < 10**20 else digits(count)} combinations{rest}"


def size_of(tree: Any) -> SpaceSize:
    """Return the size of a space's raw tree."""
    return SpaceSize(*_count(tree, "", frozenset()))


def _count(node: Any, path: str, known: frozenset[str]) -> tuple[int, int]:
    """Return the combinations of a node and its continuous ranges; `known` holes count no more."""
    hole = parse_hole("", path, node) if isinstance(node, dict) else None
    if hole is not None and hole.name in known:
        return 1, 0
    if hole is not None and hole.kind != "choice":
        count = hole.num_values()
        return (1, 1) if count is None else (count, 0)
    if hole is not None:
        members = [_count(member, f"{path}.", known | {hole.name}) for member in node["choice"]]
        return sum(count for count, _ in members), max(ranges for _, ranges in members)
    combinations, ranges = 1, 0
    for key, item in children(node):
        count, more = _count(item, f"{path}.{key}", known)
        combinations, ranges = combinations * count, ranges + more
        known |= _names(item)
    return combinations, ranges


def _names(node: Any) -> frozenset[str]:
    """Return the own names of holes that always exist at or below the node."""
    if isinstance(node, dict) and hole_kind(node) is not None:
        return frozenset([node["name"]] if "name" in node else [])
    return frozenset().union(*(_names(child) for _, child in children(node)))
