"""From a name, a file or a mapping to a validated ArchSpec, with errors that point at the text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archspec.spec.find import is_a_space, load_tree
from archspec.spec.messages import first_mistake
from archspec.spec.migrations import upgrade
from archspec.spec.schema import ArchSpec
from archspec.spec.training import OF_OPTIMIZERS
from archspec.spec.tree import replaced, split_path
from archspec.spec.yaml_file import NodePath, Source, dotted, parse
from blocks.base import SpecError

_OF_OPTIMIZERS = {("training", name) for name in OF_OPTIMIZERS}

SpecLike = ArchSpec | str | Path | Mapping[str, Any]


def load(source: SpecLike, *, overrides: Sequence[str] = ()) -> ArchSpec:
    """Return the spec with that bundled name, in that YAML file, or in that mapping.

    Overrides are texts like `encoder.stages.0.width=32` (or `stages[0]`); values are YAML.

    Raises:
        SpecError: one line: where, path, what is wrong, what is allowed.
    """
    if isinstance(source, ArchSpec):
        if not overrides:
            return source
        source = source.tree()
    return validate(apply_overrides(load_tree(source), overrides))


def apply_overrides(source: Source, overrides: Sequence[str]) -> Source:
    """Return the source with nodes replaced; their positions become the override's text.

    Raises:
        SpecError: not of the form path=value, or the path leads through a scalar or past a list.
    """
    tree, marks = source.tree, dict(source.marks)
    for text in overrides:
        left, equals, right = text.partition("=")
        path = split_path(left)
        where = f"-s {text}"
        if not equals or not path:
            raise SpecError(f"{where}  must read path=value, e.g. encoder.stages.0.width=32")
        value = parse(right or "null", where)
        tree = replaced(tree, path, value.tree, where)
        for old in [mark for mark in marks if mark[: len(path)] == path]:
            del marks[old]
        marks |= {(*path, *below): where for below in value.marks}
        for end in range(1, len(path)):  # mappings that the override made on its way
            marks.setdefault(path[:end], where)
    return Source(source.name, tree, marks)


def validate(source: Source) -> ArchSpec:
    """Return the spec that the tree describes.

    Raises:
        SpecError: one mistake: where, path, what is wrong, what is allowed.
    """
    if not isinstance(source.tree, dict):
        raise SpecError(f"{source.where(())}  a spec must be a mapping, e.g. name: my-net")
    source = upgrade(source)
    try:
        return ArchSpec.model_validate(source.tree)
    except ValidationError as errors:
        if isinstance(source.tree.get("search"), dict) or _has_hole(source.tree):
            raise SpecError(is_a_space(source.name)) from None
        path, mistake = first_mistake(errors)
        where = source.where(written_at(source, path))
        if not where.startswith("-s "):
            where, mistake = _blamed(source, path, where, mistake)
        raise SpecError(f"{where}  {dotted(path)}: {mistake}") from None


def _blamed(source: Source, path: NodePath, where: str, mistake: str) -> tuple[str, str]:
    """Return the override that made a field wrong as the place, and in the mistake what to add.

    A field of the former kind, or of the former optimizer, is kept: it is the user who drops it.
    """
    node = dotted(path[:-1])
    kind = source.where((*path[:-1], "kind"))
    if kind.startswith("-s "):
        return kind, (
            f"{mistake}; the other fields belong to the former kind ({where}): "
            f"replace all of them with -s '{node}={{kind: {kind.partition('=')[2]}}}'"
        )
    optimizer = source.where(("training", "optimizer"))
    if optimizer.startswith("-s ") and path in _OF_OPTIMIZERS:
        return optimizer, f"{mistake} ({where}): add -s {dotted(path)}=null"
    return where, mistake


def _has_hole(tree: Any) -> bool:
    """Whether a node is a choice of a search space; the search package reads them in full."""
    if isinstance(tree, Mapping):
        hole = any(isinstance(tree.get(key), tuple) for key in ("choice", "int", "float"))
        return hole or any(map(_has_hole, tree.values()))
    return isinstance(tree, tuple) and any(map(_has_hole, tree))


def written_at(source: Source, path: NodePath) -> NodePath:
    """Return where the node is written: a stage's field may stand in encoder.defaults."""
    if path in source.marks or path[:2] != ("encoder", "stages") or len(path) < 4:
        return path
    defaults = ("encoder", "defaults", *path[3:])
    return defaults if defaults in source.marks else path
