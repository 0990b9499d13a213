"""Fill the holes of a raw tree with values."""

from collections.abc import Callable
from typing import Any

from archspec.spec.tree import mapped
from archspec.spec.yaml_file import NodePath, Source, dotted
from search.space.holes import Hole, Value, parse_hole


class Filler:
    """Walk a tree and fill its holes by `pick`; note where what was filled in stands.

    With `every`, the members that were not picked are visited too, so that `pick` sees all holes.
    `above` has the members on the way to where the walk is, by the names of their choices.
    """

    def __init__(self, source: Source, pick: Callable[[Hole], Value], *, every: bool) -> None:
        self.source = source
        self.pick = pick
        self.every = every
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
            hole = parse_hole(f"{self.source.where(at)}  ", name, node)
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
