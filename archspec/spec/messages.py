"""From pydantic's errors to one line for the author of a spec: path, mistake, what is allowed."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from archspec.spec.schema import ArchSpec
from archspec.spec.words import did_you_mean, shown
from archspec.spec.yaml_file import NodePath

_Owner = type[BaseModel] | tuple[type[BaseModel], ...] | None
"""The spec class at a node, the members of the union there, or None at a scalar."""


def first_mistake(
    errors: ValidationError, root: type[BaseModel] = ArchSpec
) -> tuple[NodePath, str]:
    """Return the path of one mistake below the root's class, and what is wrong there.

    An unknown key goes before all else: it often is why its right spelling is missing.
    """
    found = errors.errors(include_url=False)
    error = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path, holder, owner = _resolve(error["loc"], root)
    if error["type"].startswith("union_tag"):
        path = (*path, "kind")
    return path, _explain(error, holder, owner)


def kinds_at(owner: type[BaseModel], field: str) -> list[str] | None:
    """Return the kinds of component that a field takes: [] for one without, None for no class."""
    members = _classes(owner.model_fields[field].annotation)
    if not members:
        return None
    return [_kind(member) for member in members if "kind" in member.model_fields]


def _resolve(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[NodePath, _Owner, _Owner]:
    """Return the path in the tree, the class that has the last key, and what is at that key."""
    path: list[str | int] = []
    holder: _Owner = None
    owner: _Owner = root
    for part in loc:
        if isinstance(owner, tuple):  # pydantic names the member of a union, which is no key
            owner = next(member for member in owner if _kind(member) == part)
            continue
        path.append(part)
        if isinstance(part, str):
            holder, owner = owner, _child(owner, part)
    return tuple(path), holder, owner


def _child(owner: type[BaseModel] | None, key: str) -> _Owner:
    field = None if owner is None else owner.model_fields.get(key)
    members = [] if field is None else _classes(field.annotation)
    return members[0] if len(members) == 1 else tuple(members) or None


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _classes(argument)]


def _kind(member: type[BaseModel]) -> str:
    return str(member.model_fields["kind"].default)


def _explain(error: ErrorDetails, holder: _Owner, owner: _Owner) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        assert isinstance(holder, type)
        keys = [*holder.model_fields, *(["defaults"] if "stages" in holder.model_fields else [])]
        return f"unknown key{did_you_mean(str(error['loc'][-1]), keys)}"
    if kind.startswith("union_tag"):
        assert isinstance(owner, tuple)
        kinds = [_kind(member) for member in owner]
        if kind == "union_tag_not_found":
            return f"missing; allowed: {', '.join(kinds)}"
        got = value["kind"]
        return f"{shown(got)} is not a {error['loc'][-1]}{did_you_mean(str(got), kinds)}"
    if kind == "literal_error":
        words = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        return f"{shown(value)} is not allowed{did_you_mean(str(value), words)}"
    if kind == "missing":
        return "missing; this key is required"
    if kind == "too_short":
        return "must not be empty"
    if kind == "tuple_type":
        return f"must be a list, but is {shown(value)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a mapping, but is {shown(value)}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = f"{message[0].lower()}{message[1:]}".replace("should", "must", 1)
    return message if isinstance(value, dict) else f"{message}, but is {shown(value)}"
