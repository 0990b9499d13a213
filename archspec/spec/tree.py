"""Paths into a raw tree, as YAML or JSON gives it: reading, replacing, freezing nodes."""

import re
from collections.abc import Mapping
from typing import Any

from archspec.spec.words import shown
from archspec.spec.yaml_file import NodePath, dotted
from blocks.errors import Place, SpecError


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


def frozen(value: Any) -> Any:
    """Return plain dicts and tuples, which strict validation takes, from any containers."""
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    return value


def split_path(text: str) -> NodePath:
    """Return the path that a text like `encoder.stages[0].width` means."""
    parts = text.strip().replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in parts if part)


def replaced(tree: Any, path: NodePath, value: Any, where: Place, done: NodePath = ()) -> Any:
    """Return the tree with the node replaced, and mappings made on the way to it.

    Raises:
        SpecError: the path leads through a scalar or past a list; `where` is its place.
    """
    if not path:
        return value
    key, rest = path[0], path[1:]
    here = dotted(done) or "the spec"
    if isinstance(tree, tuple):
        if not isinstance(key, int) or key >= len(tree):
            raise SpecError(
                f"{here} is a list of {len(tree)}; {key} is not an index of it", where=where
            )
        new = replaced(tree[key], rest, value, where, (*done, key))
        return (*tree[:key], new, *tree[key + 1 :])
    if tree is not None and not isinstance(tree, dict):
        raise SpecError(f"{here} is {shown(tree)}, which has no field {key!r}", where=where)
    below = (tree or {}).get(key)
    return {**(tree or {}), str(key): replaced(below, rest, value, where, (*done, key))}
