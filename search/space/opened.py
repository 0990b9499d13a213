"""Open nodes of a spec: what stands there, beside what else could."""

from collections.abc import Mapping, Sequence
from typing import Any

from archspec.spec.tree import node_at, writable_path
from archspec.spec.yaml_file import Source, dotted
from blocks.errors import SpecError, argument
from blocks.mixers.cycle import KIND as CYCLE
from blocks.registry import slots
from search.space.shorthand import matching_paths

Opened = Sequence[str] | Mapping[str, Any]


def holes_for(source: Source, opened: Opened) -> dict[str, Any]:
    """Return `search.holes` for the nodes at these paths, in which `*` is every index or key.

    A mapping gives the hole of each path. A path alone opens a component to all kinds of its slot,
    installed ones too, that need no field (a cycle, which is several of them, aside); a number of
    something to half of it and to twice as many; a switch to both of its positions. What stands
    there comes first.

    Raises:
        SpecError: a path means nothing, or a node that has no others.
    """
    if isinstance(opened, Mapping):
        return dict(opened)
    found: dict[str, Any] = {}
    for text in opened:
        where = argument("open", text)
        for path in matching_paths(source.tree, writable_path(text, where), where):
            node = node_at(source.tree, path)
            members = _members(str(path[-1]), node)
            if len(members) < 2:
                raise SpecError(
                    "nothing to open it to is known",
                    where=where,
                    field=dotted(path),
                    suggestion="give a mapping of paths to holes: {path: {choice: [...]}}",
                )
            found[".".join(map(str, path))] = {"choice": tuple(members)}
    return found


def _members(name: str, node: Any) -> list[Any]:
    if isinstance(node, bool):
        return [node, not node]
    if isinstance(node, int):
        return list(dict.fromkeys((node, max(node // 2, 1), 2 * node)))
    slot = slots().get(name)
    if slot is None:
        return []
    own = node.get("kind") if isinstance(node, Mapping) else None
    others = [
        {"kind": kind}
        for kind, cls in slot.kinds().items()
        if kind not in (own, CYCLE)
        and not any(field.is_required() for key, field in cls.model_fields.items() if key != "kind")
    ]
    return [*([] if node is None else [node]), *others]
