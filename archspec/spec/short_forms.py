"""Short ways to write a part of a spec, written out before anything else reads the raw tree."""

from dataclasses import replace
from typing import Any

from archspec.spec.yaml_file import NodePath, Source
from blocks.mixers.cycle import KIND


def written_out(source: Source) -> Source:
    """Return the source with every list of mixers as the cycle that it stands for.

    A word in the list stands for that kind. Holes of a search space may stand there, or hold such
    lists. Places in the text move along.
    """
    tree = source.tree
    encoder = tree.get("encoder") if isinstance(tree, dict) else None
    if encoder is None:
        return source
    writer = _Writer(source)
    written = writer.node(encoder, ("encoder",), ("encoder",), is_mixer=False)
    if written == encoder:
        return source
    marks = {path: place for path, place in source.marks.items() if path[:1] != ("encoder",)}
    return replace(source, tree={**tree, "encoder": written}, marks={**marks, **writer.marks})


class _Writer:
    """Copy nodes from their old paths to new ones, and note the places of the new ones."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.marks: dict[NodePath, Any] = {}

    def node(self, node: Any, old: NodePath, new: NodePath, *, is_mixer: bool) -> Any:
        """Return the node written out; `is_mixer` says that a list there is one of mixers."""
        self._note(old, new)
        if isinstance(node, tuple):
            if not is_mixer:
                return tuple(
                    self.node(one, (*old, i), (*new, i), is_mixer=False)
                    for i, one in enumerate(node)
                )
            self._note(old, (*new, "kind"))
            self._note(old, (*new, "of"))
            return {"kind": KIND, "of": self._members(node, old, (*new, "of"))}
        if not isinstance(node, dict):
            return node
        found = {}
        for key, value in node.items():
            below, at = (*old, key), (*new, key)
            if is_mixer and key == "choice" and isinstance(value, tuple):
                self._note(below, at)
                found[key] = tuple(
                    self.node(one, (*below, i), (*at, i), is_mixer=True)
                    for i, one in enumerate(value)
                )
            elif is_mixer and key == "of" and node.get("kind") == KIND and isinstance(value, tuple):
                self._note(below, at)
                found[key] = self._members(value, below, at)
            else:
                found[key] = self.node(value, below, at, is_mixer=key == "mixer")
        return found

    def _members(self, members: tuple[Any, ...], old: NodePath, new: NodePath) -> tuple[Any, ...]:
        return tuple(self._member(one, (*old, i), (*new, i)) for i, one in enumerate(members))

    def _member(self, node: Any, old: NodePath, new: NodePath) -> Any:
        """Return one mixer of a list: a word, a mapping, or a choice of both."""
        if isinstance(node, str):
            self._note(old, new)
            self._note(old, (*new, "kind"))
            return {"kind": node}
        if isinstance(node, dict) and isinstance(node.get("choice"), tuple):
            self._note(old, new)
            self._note((*old, "choice"), (*new, "choice"))
            below = self._members(node["choice"], (*old, "choice"), (*new, "choice"))
            rest = {key: node[key] for key in node if key != "choice"}
            return {"choice": below, **rest}
        return self.node(node, old, new, is_mixer=False)

    def _note(self, old: NodePath, new: NodePath) -> None:
        if old in self.source.marks:
            self.marks[new] = self.source.marks[old]
