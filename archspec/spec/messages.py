"""From pydantic's errors to problems for the author of a spec: path, mistake, what is allowed."""

from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from archspec.spec.schema import ArchSpec
from archspec.spec.words import SYNONYMS, nearest, shown
from archspec.spec.yaml_file import NodePath, dotted
from blocks.errors import Problem
from blocks.registry import classes_in, kind_of, slot_of, slots


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong at the path of a node; who knows the text adds the place.

    `rename` and `instead` are what was meant, where that can be guessed: another key, or another
    value; an unknown key that is like none may be dropped.
    """

    path: NodePath
    problem: Problem
    rename: str = ""
    instead: Any = None
    drop: bool = False


MAX_EXPLAINED = 200
"""Mistakes of one text that are explained; the others are only counted, for a hostile text's sake.
"""

_Owner = type[BaseModel] | tuple[type[BaseModel], ...] | None
"""The spec class at a node, the members of the union there, or None at a scalar."""


def mistakes(errors: ValidationError, root: type[BaseModel] = ArchSpec) -> list[Mistake]:
    """Return every mistake below the root's class.

    A key that is missing where an unknown one nearly is it makes one mistake, not two.
    """
    found: list[Mistake] = []
    missing, empty = set(), set()
    for error in errors.errors(include_url=False):
        path, classes = _resolve(error["loc"], root)
        if error["type"].startswith("union_tag"):
            path = (*path, "kind")
        if error["type"] == "missing":
            missing.add(path)
        if error["type"] == "too_short":
            empty.add(path)
        if len(found) < MAX_EXPLAINED:
            found.append(_explain(error, path, classes))
        else:
            found.append(Mistake(path, Problem(error["msg"])))
    meant = {(*one.path[:-1], one.rename) for one in found if one.rename}
    # a list whose every entry is wrong is empty to pydantic
    full = {p for p in empty if any(one.path[: len(p)] == p != one.path for one in found)}
    return [one for one in found if one.path not in {*full, *(missing & meant)}]


def classes_at(owner: type[BaseModel], field: str) -> list[type[BaseModel]]:
    """Return the classes of component that a field takes."""
    return _classes(owner.model_fields[field])


def _resolve(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[NodePath, list[_Owner]]:
    """Return the path in the tree, and the class at each of its nodes, the root's first."""
    path: list[str | int] = []
    classes: list[_Owner] = [root]
    for part in loc:
        owner = classes[-1]
        if isinstance(part, int):
            classes.append(owner)
        elif isinstance(owner, tuple):  # pydantic names the member of a union, which is no key
            named = [one for one in owner if part in (kind_of(one), one.__name__)]
            classes[-1] = named[0]
            continue
        else:
            classes.append(_child(owner, part))
        path.append(part)
    return tuple(path), classes


def _child(owner: type[BaseModel] | None, key: str) -> _Owner:
    field = None if owner is None else owner.model_fields.get(key)
    members = [] if field is None else _classes(field)
    return members[0] if len(members) == 1 else tuple(members) or None


def _classes(field: FieldInfo) -> list[type[BaseModel]]:
    return classes_in(field.annotation, field.metadata)


def _explain(error: ErrorDetails, path: NodePath, classes: list[_Owner]) -> Mistake:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), path, classes)
    if kind.startswith("union_tag"):
        return _unknown_kind(kind, value, path, classes[-1])
    if kind == "literal_error":
        words = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        return _unknown_word(f"{shown(value)} is not allowed", value, words, path)
    if kind == "missing":
        kinds = [kind_of(one) for one in _members(classes[-1]) if "kind" in one.model_fields]
        allowed = f"{{kind: {' | '.join(kinds)}}}" if kinds else ""
        return Mistake(path, Problem("missing", None, "", allowed, "this key is required"))
    if kind == "too_short":
        return Mistake(path, Problem("must not be empty"))
    if kind == "too_long":
        most, number = context["max_length"], context["actual_length"]
        return Mistake(path, Problem(f"must have at most {most} entries, but has {number}"))
    if kind == "tuple_type":
        return Mistake(path, Problem(f"must be a list, but is {shown(value)}"))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _no_mapping(value, path, classes[-1])
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = f"{message[0].lower()}{message[1:]}".replace("should", "must", 1)
    message = message.replace("a valid boolean", "true or false")
    if kind in ("int_type", "float_type") and _takes_null(path, classes):
        message += " or null"
    if not isinstance(value, dict):
        message = f"{message}, but is {shown(value)}"
    return Mistake(path, Problem(message, suggestion=_meaning(path, classes)))


def _unknown_kind(kind: str, value: Any, path: NodePath, members: _Owner) -> Mistake:
    assert isinstance(members, tuple)
    slot = slot_of(members[0])
    kinds = [kind_of(member) for member in members]
    if kind == "union_tag_not_found":
        return Mistake(path, Problem("missing", allowed=", ".join(kinds)))
    got = value["kind"]
    mistake = _unknown_word(f"{shown(got)} is not a {slot}", got, kinds, path)
    broken = [one.text() for one in slots()[slot].broken if one.name == got]
    if broken:
        problem = replace(mistake.problem, suggestion=f"cannot be used: {broken[0]}")
        return replace(mistake, problem=problem, instead=None)
    return mistake


def _unknown_word(what: str, value: Any, words: list[str], path: NodePath) -> Mistake:
    """Return the mistake; `true` may mean the one word that is not `none`."""
    switched = [word for word in words if word != "none"]
    on = value is True and len(switched) == 1 and len(words) == 2
    meant = switched[0] if on else nearest(str(value), words)
    suggestion = f"did you mean {meant!r}?" if meant else ""
    problem = Problem(what, allowed=", ".join(words), suggestion=suggestion)
    return Mistake(path, problem, instead=meant or None)


def _no_mapping(value: Any, path: NodePath, owner: _Owner) -> Mistake:
    """Return the mistake, with what a mapping there looks like."""
    what = f"must be a mapping, but is {shown(value)}"
    named = "none" if value is None else value
    if isinstance(owner, tuple) and named in [kind_of(member) for member in owner]:
        written = f"write {{kind: {named}}}"
        return Mistake(path, Problem(what, suggestion=written), instead={"kind": named})
    example = _example(owner)
    return Mistake(
        path,
        Problem(what, suggestion=f"e.g. {example}" if example else ""),
        instead={} if example else None,
    )


def _example(owner: _Owner) -> str:
    """Return a mapping of the class, where it has one field and that a default."""
    if not isinstance(owner, type) or len(owner.model_fields) != 1:
        return ""
    ((name, field),) = owner.model_fields.items()
    return "" if field.is_required() else f"{{{name}: {field.default}}}"


def _field(path: NodePath, classes: list[_Owner]) -> FieldInfo | None:
    holder = classes[-2] if len(classes) > 1 else None
    return holder.model_fields.get(str(path[-1])) if isinstance(holder, type) else None


def _meaning(path: NodePath, classes: list[_Owner]) -> str:
    """Return what the field is, where its class says it."""
    field = _field(path, classes)
    return (field and field.description) or ""


def _takes_null(path: NodePath, classes: list[_Owner]) -> bool:
    field = _field(path, classes)
    return field is not None and NoneType in get_args(field.annotation)


def _members(owner: _Owner) -> tuple[type[BaseModel], ...]:
    return owner if isinstance(owner, tuple) else (owner,) if owner else ()


def _keys(holder: _Owner) -> list[str]:
    """Return the keys that a mapping of this class may have."""
    assert isinstance(holder, type)
    names = [field.alias or name for name, field in holder.model_fields.items()]
    return [*names, *(["defaults"] if "stages" in holder.model_fields else [])]


def _meant(key: str, keys: list[str]) -> str:
    """Return the key that an unknown one may be, by its meaning or by its spelling."""
    synonym = SYNONYMS.get(key, "")
    return synonym if synonym in keys else nearest(key, keys)


def _unknown_key(key: str, path: NodePath, classes: list[_Owner]) -> Mistake:
    """Return what is wrong with the key: its spelling, its place, or the kind that has it."""
    keys = _keys(classes[-2])
    meant = _meant(key, keys)
    elsewhere = "" if key in SYNONYMS else _elsewhere(key, path, classes)
    suggestion = elsewhere or (f"did you mean {meant!r}?" if meant else "")
    problem = Problem("unknown key", allowed=", ".join(keys), suggestion=suggestion)
    return Mistake(path, problem, rename="" if elsewhere else meant, drop=True)


def _elsewhere(key: str, path: NodePath, classes: list[_Owner]) -> str:
    """Return where the key would stand: above, in another kind of its node, or just below."""
    for length in range(len(path) - 2, -1, -1):
        owner = classes[length]
        if isinstance(owner, type) and key in owner.model_fields and not _in_list(path, length):
            if length:
                whole = "the stage" if isinstance(path[length - 1], int) else dotted(path[:length])
                return f"it is a field of {whole}"
            example = _example(_child(owner, key))
            return f"it stands at the top level: {key}{f': {example}' if example else ''}"
    parent, node = classes[-3] if len(classes) > 2 else None, classes[-2]
    if isinstance(parent, type) and isinstance(path[-2], str):
        siblings = _classes(parent.model_fields[path[-2]])
        kinds = [kind_of(one) for one in siblings if one is not node and key in one.model_fields]
        if any(kinds):
            return f"only kind {' and '.join(kinds)} has it"
    if isinstance(node, type):
        below = [
            name
            for name, field in node.model_fields.items()
            if any(key in one.model_fields for one in _classes(field))
        ]
        if len(below) == 1:
            return f"it is a field of {below[0]}"
    return ""


def _in_list(path: NodePath, length: int) -> bool:
    """Say whether the node at that length is a list, which has no keys."""
    return length < len(path) and isinstance(path[length], int)
