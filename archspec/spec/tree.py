"""Raw trees, as YAML or JSON gives them: dicts, lists or tuples, scalars.

A node's path has the keys and indices that lead there. No function changes the tree it is given.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from archspec.spec.words import shown
from archspec.spec.yaml_file import MAX_DEPTH, MAX_NODES, NodePath, dotted, too_deep, too_large
from blocks.errors import Place, SpecError


def split_path(text: str) -> NodePath:
    """Return the path that a text like `encoder.stages[0].width` means."""
    parts = text.strip().replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in parts if part)


def writable_path(text: str, where: Place) -> NodePath:
    """Return the path that a user wrote to put a node there.

    Raises:
        SpecError: it has more parts than a text may have levels.
    """
    path = split_path(text)
    if len(path) > MAX_DEPTH:
        raise too_deep(where)
    return path


def children(node: Any) -> list[tuple[str | int, Any]]:
    """Return what is directly below, each with its key or index; nothing is below a scalar."""
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list | tuple) else []


def walk(tree: Any, path: NodePath = ()) -> Iterator[tuple[NodePath, Any]]:
    """Yield every node with its path: the root first, then each child with all below it."""
    yield path, tree
    for key, child in children(tree):
        yield from walk(child, (*path, key))


def node_at(tree: Any, path: NodePath, default: Any = None) -> Any:
    """Return the node there, or the default where there is none."""
    for key in path:
        if isinstance(tree, dict) and str(key) in tree:
            tree = tree[str(key)]
        elif isinstance(tree, list | tuple) and _is_index(key, tree):
            tree = tree[int(key)]
        else:
            return default
    return tree


def paths_at(tree: Any, pattern: NodePath) -> list[NodePath]:
    """Return the paths that the pattern means: `*` is every index or key at its place.

    The other parts are taken as they are, whether anything stands there or not.
    """
    paths: list[NodePath] = [()]
    for part in pattern:
        if part == "*":
            paths = [(*p, key) for p in paths for key, _ in children(node_at(tree, p))]
        else:
            paths = [(*p, part) for p in paths]
    return paths


def mapped(node: Any, change: Callable[[str | int, Any], Any]) -> Any:
    """Return the node with `change(key, child)` for each child; a scalar as it is."""
    if isinstance(node, dict):
        return {key: change(key, child) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(change(index, child) for index, child in enumerate(node))
    return node


def with_node(tree: Any, path: NodePath, value: Any) -> Any:
    """Return the tree with the value at a path that can be written, see `unwritable`.

    Mappings are made on the way where nothing is.
    """
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(tree, list | tuple):
        return mapped(tree, lambda i, child: with_node(child, rest, value) if i == key else child)
    below = node_at(tree, (key,))
    return {**(tree or {}), str(key): with_node(below, rest, value)}


def without_node(tree: Any, path: NodePath) -> Any:
    """Return the tree without a key of a mapping; as it is where there is none."""
    holder = node_at(tree, path[:-1])
    if not isinstance(holder, dict) or path[-1] not in holder:
        return tree
    rest = {key: child for key, child in holder.items() if key != path[-1]}
    return with_node(tree, path[:-1], rest)


def unwritable(tree: Any, path: NodePath) -> NodePath | None:
    """Return where the path leads through a scalar or past a list, None where it can be written."""
    node = tree
    for done, key in enumerate(path):
        if isinstance(node, list | tuple):
            fits = _is_index(key, node)
        else:
            fits = node is None or isinstance(node, dict)
        if not fits:
            return path[:done]
        node = node_at(node, (key,))
    return None


def replaced(tree: Any, path: NodePath, value: Any, where: Place) -> Any:
    """Return the tree `with_node`, for a path that a user wrote.

    Raises:
        SpecError: the path leads through a scalar or past a list; `where` is its place.
    """
    end = unwritable(tree, path)
    if end is None:
        return with_node(tree, path, value)
    node, key, here = node_at(tree, end), path[len(end)], dotted(end) or "the spec"
    if isinstance(node, list | tuple):
        raise SpecError(
            f"{here} is a list of {len(node)}; {key} is not an index of it", where=where
        )
    raise SpecError(f"{here} is {shown(node)}, which has no field {key!r}", where=where)


def check_size(tree: Any, where: Place) -> None:
    """Refuse what no YAML text may be: for trees that come as Python's or JSON's containers.

    Raises:
        SpecError: too deep, as what holds itself is, or too large.
    """
    level, nodes = [tree], 0
    for _ in range(MAX_DEPTH + 1):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise too_large(where)
        level = [
            child
            for node in level
            if isinstance(node, Mapping | list | tuple)
            for child in (node.values() if isinstance(node, Mapping) else node)
        ]
    if level:
        raise too_deep(where)


def frozen(value: Any) -> Any:
    """Return plain dicts and tuples, which strict validation takes, from any containers."""
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    return value


def thawed(value: Any) -> Any:
    """Return plain dicts and lists, as JSON has them, none of them shared."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thawed(item) for item in value]
    return value


def _is_index(key: str | int, items: list[Any] | tuple[Any, ...]) -> bool:
    return isinstance(key, int) and 0 <= key < len(items)
