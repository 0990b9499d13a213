"""From a name, a file or a mapping to a validated ArchSpec, with errors that point at the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archspec.spec.find import is_a_space, load_tree
from archspec.spec.messages import MAX_EXPLAINED, Mistake, mistakes
from archspec.spec.migrations import upgrade
from archspec.spec.schema import ArchSpec
from archspec.spec.short_forms import written_out
from archspec.spec.training import OF_OPTIMIZERS
from archspec.spec.tree import node_at, replaced, with_node, without_node, writable_path
from archspec.spec.yaml_file import NodePath, Source, dotted, parse
from blocks.errors import Place, Problem, SpecError

_OF_OPTIMIZERS = {("training", name) for name in OF_OPTIMIZERS}

MAX_OVERRIDES = 500
_ABSENT = object()

SpecLike = ArchSpec | str | Path | Mapping[str, Any]


def load(source: SpecLike, *, overrides: Sequence[str] = ()) -> ArchSpec:
    """Return the spec with that bundled name, in that YAML file, or in that mapping.

    Overrides are texts like `encoder.stages.0.width=32` (or `stages[0]`); values are YAML.

    Raises:
        SpecError: every mistake: where, path, what is wrong, what is allowed.
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
    source = written_out(source)
    tree, marks = source.tree, dict(source.marks)
    problems: list[Problem] = []
    check_number(overrides)
    for text in overrides:
        left, equals, right = text.partition("=")
        where = Place(text, kind="override")
        try:
            path = writable_path(left, where)
            if not equals or not path:
                raise SpecError("must read path=value, e.g. encoder.stages.0.width=32", where=where)
            value = _parsed(right, where, path)
            tree = replaced(tree, path, value.tree, where)
        except SpecError as error:
            problems += error.problems
            continue
        for old in [mark for mark in marks if mark[: len(path)] == path]:
            del marks[old]
        marks |= {(*path, *below): where for below in value.marks}
        for end in range(1, len(path)):  # mappings that the override made on its way
            marks.setdefault(path[:end], where)
    if problems:
        raise SpecError(problems)
    return replace(source, tree=tree, marks=marks)


def check_number(overrides: Sequence[str]) -> None:
    """Refuse more overrides, those that a `*` stands for included, than anyone would write.

    Raises:
        SpecError: see above.
    """
    if len(overrides) > MAX_OVERRIDES:
        raise SpecError(
            "too many overrides",
            where=Place(overrides[-1], kind="override"),
            allowed=f"at most {MAX_OVERRIDES}, each node that * stands for counted",
        )


def _parsed(text: str, where: Place, path: NodePath) -> Source:
    try:
        return parse(text or "null", where)
    except SpecError as error:
        raise error.below(dotted(path)) from None


def validate(source: Source) -> ArchSpec:
    """Return the spec that the tree describes.

    Raises:
        SpecError: every mistake, in the order of the text: where, path, what is wrong, what is
            allowed.
    """
    checked = check(source)
    if checked.problems or checked.spec is None:
        raise SpecError(in_order(checked.problems))
    return checked.spec


@dataclass(frozen=True)
class Checked:
    """What a text holds: the spec, or what is wrong and what may have been meant.

    With problems, `spec` and `source` are a guess, by which more mistakes can be found in the same
    run; the spec is None where nothing could be guessed.
    """

    spec: ArchSpec | None
    source: Source
    problems: list[Problem]


def check(source: Source) -> Checked:
    """Validate a tree, and go on from each mistake whose meaning can be guessed.

    Raises:
        SpecError: it is a search space, or of a schema that this package does not read.
    """
    problems = list(source.problems)
    if len(problems) > MAX_EXPLAINED:
        return Checked(None, source, problems)
    if not isinstance(source.tree, dict):
        wrong = Problem("a spec must be a mapping, e.g. name: my-net", source.where(()))
        return Checked(None, source, [*problems, wrong])
    source = written_out(upgrade(source))
    spec = None
    while spec is None:
        try:
            spec = ArchSpec.model_validate(source.tree)
        except ValidationError as errors:
            if isinstance(source.tree.get("search"), dict) or _has_hole(source.tree):
                raise is_a_space(source.name) from None
            found = mistakes(errors)
            told = set(problems)
            problems += [one for one in located(found, source) if one not in told]
            guess = _guessed(source, found) if len(problems) <= MAX_EXPLAINED else None
            if guess is None:
                break
            source = guess
    return Checked(spec, source, problems)


def _guessed(source: Source, found: Sequence[Mistake]) -> Source | None:
    """Return the source with mistakes mended whose meaning can be guessed; None without any.

    Nothing is mended that is not written there, such as what a cycle's member has by default.
    """
    tree, marks = source.tree, dict(source.marks)
    for one in found:
        path = written_at(source, one.path)
        if node_at(tree, path, _ABSENT) is _ABSENT:
            continue
        if one.instead is not None:
            tree = with_node(tree, path, one.instead)
        elif one.drop:
            meant = (*path[:-1], one.rename)
            value, there = node_at(tree, path), node_at(tree, meant)
            tree = without_node(tree, path)
            if one.rename and there is None:
                tree = with_node(tree, meant, value)
                marks |= {
                    (*meant, *mark[len(path) :]): place
                    for mark, place in source.marks.items()
                    if mark[: len(path)] == path
                }
    return replace(source, tree=tree, marks=marks) if tree != source.tree else None


def located(found: Sequence[Mistake], source: Source) -> list[Problem]:
    """Return the mistakes with their places; those with one cause are told once.

    A node that the text has a problem with is not judged by its value, and what stands in
    `encoder.defaults`, or belongs to a former kind, is wrong in one place only.
    """
    problems: list[Problem] = []
    unread, told = {one.field for one in source.problems}, set()
    for mistake in found:
        path = written_at(source, mistake.path)
        where = source.where(path)
        one = replace(mistake.problem, where=where, field=dotted(path))
        if where.kind != "override":
            one = _blamed(source, path, one)
        cause = (one.where, one.problem, one.suggestion)
        if cause not in told and one.field not in unread:
            problems.append(one)
            told.add(cause)
    return problems


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems in the order of the text, those of overrides first."""

    def position(one: Problem) -> tuple[int, int]:
        return ((one.where and one.where.line) or 0, (one.where and one.where.column) or 0)

    return sorted(problems, key=position)


def _blamed(source: Source, path: NodePath, one: Problem) -> Problem:
    """Return the problem with the override that made a field wrong as its place, and the way out.

    A field of the former kind, or of the former optimizer, is kept: it is the user who drops it.
    """
    node = dotted(path[:-1])
    kind = source.where((*path[:-1], "kind"))
    if kind.kind == "override":
        way_out = (
            f"the fields of the former kind still stand there ({one.where}): replace all of them "
            f"with -s '{node}={{kind: {kind.name.partition('=')[2]}}}'"
        )
        return replace(one, where=kind, suggestion=way_out)
    optimizer = source.where(("training", "optimizer"))
    if optimizer.kind == "override" and path in _OF_OPTIMIZERS:
        problem = f"{one.problem} ({one.where})"
        return replace(one, problem=problem, where=optimizer, suggestion=f"add -s {one.field}=null")
    return one


def _has_hole(tree: Any) -> bool:
    """Whether a node is a choice of a search space; the search package reads them in full."""
    if isinstance(tree, Mapping):
        hole = any(isinstance(tree.get(key), tuple) for key in ("choice", "int", "float"))
        return hole or any(map(_has_hole, tree.values()))
    return isinstance(tree, tuple) and any(map(_has_hole, tree))


def written_at(source: Source, path: NodePath) -> NodePath:
    """Return where the node is written: a stage's field may stand in encoder.defaults."""
    if path[:2] != ("encoder", "stages") or len(path) < 4 or _is_there(source, path):
        return path
    defaults = ("encoder", "defaults", *path[3:])
    return defaults if _is_there(source, defaults) else path


def _is_there(source: Source, path: NodePath) -> bool:
    return path in source.marks or node_at(source.tree, path, _ABSENT) is not _ABSENT
