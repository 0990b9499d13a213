"""Holes: the nodes of a search space that are left open."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from optuna import Trial

from blocks.base import SpecError

Value = str | int | float | bool | None
_KEYS = {"choice": {"choice"}, "int": {"int", "step", "log"}, "float": {"float", "log"}}


@dataclass(frozen=True)
class Hole:
    """One open choice. `options` are labels of a choice, or the two ends of a range."""

    name: str
    kind: str
    options: tuple[Value, ...]
    step: int | None = None
    log: bool = False

    def suggest(self, trial: Trial) -> Value:
        """Draw a value."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.options)
        low, high = self.options
        if self.kind == "int":
            assert isinstance(low, int) and isinstance(high, int)
            return trial.suggest_int(self.name, low, high, step=self.step or 1, log=self.log)
        assert isinstance(low, int | float) and isinstance(high, int | float)
        return trial.suggest_float(self.name, low, high, log=self.log)


def parse_hole(position: str, name: str, node: dict[str, Any]) -> Hole | None:
    """Return the hole that the mapping declares, or None where it is plain data."""
    kinds = [kind for kind in _KEYS if kind in node]
    if not kinds or not set(node) <= _KEYS[kinds[0]]:
        return None
    kind, value = kinds[0], node[kinds[0]]
    name = name.rstrip(".")
    where = f"{position}{name}"
    log = node.get("log", False)
    if not isinstance(log, bool):
        raise SpecError(f"{where}: log must be true or false")
    if kind == "choice":
        if not isinstance(value, tuple) or not value:
            raise SpecError(f"{where}: choice needs a list with at least one member")
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
    for member, kind in zip(members, kinds, strict=True):
        if not isinstance(member, dict | tuple):
            yield member
        elif isinstance(kind, str) and kinds.count(kind) == 1:
            yield kind
        else:
            yield yaml.safe_dump(_lists(member), default_flow_style=True, width=10_000).strip()


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def has_hole(node: Any) -> bool:
    if isinstance(node, tuple):
        return any(has_hole(item) for item in node)
    if not isinstance(node, dict):
        return False
    kinds = [kind for kind in _KEYS if kind in node]
    return any(set(node) <= _KEYS[kind] for kind in kinds) or any(map(has_hole, node.values()))
