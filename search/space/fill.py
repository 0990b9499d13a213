"""Fill the holes of a raw tree with values."""

from collections.abc import Callable
from typing import Any

from archspec.spec.tree import mapped
from archspec.spec.yaml_file import NodePath, Source, dotted
from search.space.holes import Hole, Value, parse_hole

Parsed = dict[tuple[int, str], tuple[Any, Hole | None]]
"""Holes by the identity of their nodes, which are kept beside them, and by their paths."""


class Filler:
    """Walk a tree and fill its holes by `pick`; note where what was filled in stands.

    `parsed` keeps what was read of the holes, for the next filler of the same tree. With `every`,
    the members that were not picked are visited too, so that `pick` sees all holes. `above` has the
    members on the way to where the walk is, by the names of their choices.
    """

    def __init__(
        self,
        source: Source,
        pick: Callable[[Hole], Value],
        *,
        every: bool,
        parsed: Parsed | None = None,
    ) -> None:
        self.source = source
        self.pick = pick
        self.every = every
        self.parsed = {} if parsed is None else parsed
        self.above: dict[str, Value] = {}
        self.marks = dict(source.marks)

    def fill(self, node: Any, path: NodePath, at: NodePath, scope: tuple[str, int]) -> Any:
        """Return the node filled.

        `path` is its place in the filled tree, `at` its place in the text; `scope` is the name of
        the enclosing member and how much of the path that name stands for.
        """
        if at in self.source.marks:
            self.marks[path] = self.source.marks[at]
        hole = None
        if isinstance(node, dict):
            name = scope[0] + dotted(path[scope[1] :])
            hole = self._parsed(node, name, at)
        if hole is None:
            return mapped(node, lambda key, item: self.fill(item, (*path, key), (*at, key), scope))
        value = self.pick(hole)
        if hole.kind != "choice":
            return value
        filled = None
        for index, option in enumerate(hole.options):
            if option == value or self.every:
                inner = (f"{hole.name}[{option}].", len(path))
                outer, self.above = self.above, {**self.above, hole.name: option}
                member = self.fill(node["choice"][index], path, (*at, "choice", index), inner)
                self.above = outer
                filled = member if option == value else filled
        return filled

    def _parsed(self, node: dict[str, Any], name: str, at: NodePath) -> Hole | None:
        key = (id(node), name)
        if key not in self.parsed:
            position = f"{self.source.where(at)}  "
            self.parsed[key] = (node, parse_hole(position, name, node))
        return self.parsed[key][1]
