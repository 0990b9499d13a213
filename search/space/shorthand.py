"""Short ways to write a space, written out when it is loaded: wildcards, holes by path, ties."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from archspec.spec.load import check_number
from archspec.spec.tree import (
    mapped,
    node_at,
    paths_at,
    split_path,
    unwritable,
    with_node,
    writable_path,
)
from archspec.spec.words import listed, shown
from archspec.spec.yaml_file import MAX_NODES, NodePath, Source, dotted, too_large
from blocks.errors import Place, SpecError
from search.space.holes import hole_kind, holes_in

MAX_HOLES = 500
"""Nodes that `search.holes` opens."""


def expand_overrides(source: Source, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides with every `*` written out as the indices or keys that stand there.

    Raises:
        SpecError: nothing stands there.
    """
    expanded: list[str] = []
    for text in overrides:
        left, equals, right = text.partition("=")
        if "*" not in left:
            expanded.append(text)
            continue
        where = Place(text, kind="override")
        for path in matching_paths(source.tree, writable_path(left, where), where):
            expanded.append(f"{'.'.join(map(str, path))}{equals}{right}")
        check_number(expanded)
    return tuple(expanded)


def matching_paths(tree: Any, pattern: NodePath, where: Place) -> list[NodePath]:
    """Return the paths that the pattern means; `*` is every index or key at its place.

    Raises:
        SpecError: a `*` stands where there is no list or mapping.
    """
    paths = paths_at(tree, pattern)
    if not paths:
        raise SpecError(
            "no such node", where=where, field=dotted(pattern), suggestion="* is an index or key"
        )
    return paths


def put_holes(source: Source, holes: dict[str, Any]) -> Source:
    """Return the source with the holes of `search.holes` at the paths that their keys mean.

    Raises:
        SpecError: a key matches nothing, or leads through a scalar or past a list.
    """
    tree, marks = source.tree, dict(source.marks)
    count = 0
    for key, hole in holes.items():
        at: NodePath = ("search", "holes", key)
        where = source.where(at)
        if not isinstance(hole, dict) or hole_kind(hole) is None:
            raise SpecError("must be a hole, e.g. {choice: [4, 8]}", where=where, field=key)
        if split_path(key)[:1] == ("search",):
            raise SpecError(
                "no node of the network",
                where=where,
                field=key,
                suggestion="of the settings only match.macs and match.macs_per_voxel may be "
                "choices, written there themselves",
            )
        paths = matching_paths(tree, writable_path(key, where), where)
        count += len(paths)
        if count > MAX_HOLES:
            raise SpecError(
                "too many nodes are opened",
                where=where,
                field=key,
                allowed=f"at most {MAX_HOLES}, each node that * stands for counted",
            )
        for path in paths:
            tree = _put(tree, path, hole, f"{where}  {key}")
            for old in [mark for mark in marks if _in(mark, path)]:
                del marks[old]
            below = {mark[len(at) :]: text for mark, text in source.marks.items() if _in(mark, at)}
            marks |= {(*path, *rest): text for rest, text in below.items()}
    return Source(source.name, tree, marks)


def resolve_ties(source: Source) -> Source:
    """Return the source with every `{tie: name}` replaced by the hole of that name.

    Raises:
        SpecError: no hole has the name, or two that differ.
    """
    named: dict[str, tuple[NodePath, Any]] = {}
    for path, node in holes_in(source.tree):
        if "name" not in node:
            continue
        name = node["name"]
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
            raise SpecError(
                "name must be a word, e.g. w1", where=source.where(path), field=dotted(path)
            )
        if name in named and named[name][1] != node:
            first = source.where(named[name][0])
            raise SpecError(
                f"another hole is named {name} ({first})",
                where=source.where(path),
                field=dotted(path),
                suggestion=f"write {{tie: {name}}} to give both the same value",
            )
        named.setdefault(name, (path, node))
    below = {
        name: [(m[len(at) :], text) for m, text in source.marks.items() if _in(m, at) and m != at]
        for name, (at, _) in named.items()
    }
    marks, nodes = dict(source.marks), 0

    def resolved(node: Any, path: NodePath, inside: tuple[str, ...]) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES:
            raise too_large(source.where(path))
        if not isinstance(node, dict) or set(node) != {"tie"}:
            named_hole = isinstance(node, dict) and hole_kind(node) and "name" in node
            inner = (*inside, node["name"]) if named_hole else inside
            return mapped(node, lambda key, item: resolved(item, (*path, key), inner))
        name = node["tie"]
        if not isinstance(name, str) or name not in named or name in inside:
            what = "is inside that hole itself" if name in inside else "no hole has that name"
            raise SpecError(
                f"tie: {shown(name)}: {what}",
                where=source.where(path),
                field=dotted(path),
                suggestion=f"named holes: {listed(list(named)) or 'none'}",
            )
        marks.update({(*path, *rest): text for rest, text in below[name]})
        return resolved(named[name][1], path, (*inside, name))

    tree = resolved(source.tree, (), ())
    return Source(source.name, tree, marks)


def expand_anchor(
    anchor: dict[str, Any], names: Iterable[str], where: Mapping[str, Place]
) -> dict[str, Any]:
    """Return the anchor with every key that holds a `*` replaced by the holes that it matches.

    A key without one goes before. `*` stands for one part of a name between dots.

    Raises:
        SpecError: a key matches no hole.
    """
    names = list(names)
    expanded: dict[str, Any] = {}
    for key, value in anchor.items():
        if "*" in key:
            found = [name for name in names if _matches(key, name)]
            if not found:
                raise SpecError(f"anchor {key}: no such hole ({listed(names)})", where=where[key])
            expanded |= dict.fromkeys(found, value)
    return {**expanded, **{key: value for key, value in anchor.items() if "*" not in key}}


def _matches(key: str, name: str) -> bool:
    """Say whether the name is what the key means, whose `*` stand for what has no dot.

    Each `*` takes the least that what follows it lets it, and never gives any of it back: a pattern
    of many of them would be tried in more ways than there is time for.
    """
    start, *rest = re.split(r"\*+", key)
    pattern = re.escape(start) + "".join(f"(?>[^.]*?{re.escape(one)})" for one in rest[:-1])
    end = rest[-1]
    found = re.match(pattern, name)
    if found is None or not name.endswith(end) or len(name) - len(end) < found.end():
        return False
    return "." not in name[found.end() : len(name) - len(end)]


def _put(tree: Any, path: NodePath, hole: Any, where: str) -> Any:
    end = unwritable(tree, path)
    if end is None:
        return with_node(tree, path, hole)
    node, key = node_at(tree, end), path[len(end)]
    if isinstance(node, tuple):
        raise SpecError(f"{key} is not an index of a list of {len(node)}", where=where)
    raise SpecError(f"there is {shown(node)}, which has no field {key!r}", where=where)


def _in(mark: NodePath, path: NodePath) -> bool:
    return mark[: len(path)] == path
