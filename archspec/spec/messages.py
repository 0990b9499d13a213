"""From pydantic's errors to problems for the author of a spec: path, mistake, what is allowed."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from archspec.spec.schema import ArchSpec
from archspec.spec.words import did_you_mean, nearest, shown
from archspec.spec.yaml_file import NodePath, dotted
from blocks.errors import Problem

Mistake = tuple[NodePath, Problem]
"""The path of a node, and what is wrong there; who knows the text adds the place."""
_SYNONYMS = {
    "heads": "num_heads",
    "n_heads": "num_heads",
    "channels": "width",
    "features": "width",
    "dim": "width",
    "embed_dim": "width",
    "out_channels": "width",
    "num_blocks": "depth",
    "blocks": "depth",
    "num_layers": "depth",
    "state": "d_state",
    "slices": "num_slices",
    "kernel": "kernel_size",
    "type": "kind",
    "name": "kind",
    "classes": "num_classes",
    "channels_in": "in_channels",
    "input_channels": "in_channels",
    "patch": "patch_size",
    "learning_rate": "lr",
    "initial_lr": "lr",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "scheduler": "schedule",
    "lr_schedule": "schedule",
    "grad_clip": "clip",
    "warmup_steps": "warmup",
    "warmup_epochs": "warmup",
}
"""What other tools call a field -> ours."""
_Owner = type[BaseModel] | tuple[type[BaseModel], ...] | None
"""The spec class at a node, the members of the union there, or None at a scalar."""


def mistakes(errors: ValidationError, root: type[BaseModel] = ArchSpec) -> list[Mistake]:
    """Return every mistake below the root's class.

    A key that is missing where an unknown one nearly is it makes one mistake, not two.
    """
    found: list[Mistake] = []
    meant, missing, empty = set(), set(), []
    for error in errors.errors(include_url=False):
        path, classes = _resolve(error["loc"], root)
        if error["type"].startswith("union_tag"):
            path = (*path, "kind")
        if error["type"] == "extra_forbidden":
            meant.add((*path[:-1], _meant(str(path[-1]), _keys(classes[-2]))))
        if error["type"] == "missing":
            missing.add(path)
        if error["type"] == "too_short":
            empty.append(path)
        found.append((path, _explain(error, path, classes)))
    # a list whose every entry is wrong is empty to pydantic
    full = {
        path for path in empty if any(other[: len(path)] == path != other for other, _ in found)
    }
    dropped = {*full, *(missing & meant)}
    return [(path, one) for path, one in found if path not in dropped]


def kinds_at(owner: type[BaseModel], field: str) -> list[str] | None:
    """Return the kinds of component that a field takes: [] for one without, None for no class."""
    members = _classes(owner.model_fields[field].annotation)
    if not members:
        return None
    return [_kind(member) for member in members if "kind" in member.model_fields]


def _resolve(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[NodePath, list[_Owner]]:
    """Return the path in the tree, and the class at each of its nodes, the root's first."""
    path: list[str | int] = []
    classes: list[_Owner] = [root]
    for part in loc:
        owner = classes[-1]
        if isinstance(owner, tuple):  # pydantic names the member of a union, which is no key
            classes[-1] = next(member for member in owner if _kind(member) == part)
            continue
        path.append(part)
        classes.append(_child(owner, part) if isinstance(part, str) else owner)
    return tuple(path), classes


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


def _explain(error: ErrorDetails, path: NodePath, classes: list[_Owner]) -> Problem:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), path, classes)
    if kind.startswith("union_tag"):
        members = classes[-1]
        assert isinstance(members, tuple)
        kinds = [_kind(member) for member in members]
        allowed = ", ".join(kinds)
        if kind == "union_tag_not_found":
            return Problem("missing", allowed=allowed)
        got = value["kind"]
        return Problem(
            f"{shown(got)} is not a {error['loc'][-1]}",
            allowed=allowed,
            suggestion=did_you_mean(str(got), kinds),
        )
    if kind == "literal_error":
        words = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        return Problem(
            f"{shown(value)} is not allowed",
            allowed=", ".join(words),
            suggestion=did_you_mean(str(value), words),
        )
    if kind == "missing":
        return Problem("missing", suggestion="this key is required")
    if kind == "too_short":
        return Problem("must not be empty")
    if kind == "tuple_type":
        return Problem(f"must be a list, but is {shown(value)}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(f"must be a mapping, but is {shown(value)}")
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = f"{message[0].lower()}{message[1:]}".replace("should", "must", 1)
    if not isinstance(value, dict):
        message = f"{message}, but is {shown(value)}"
    return Problem(message, suggestion=_meaning(path, classes))


def _meaning(path: NodePath, classes: list[_Owner]) -> str:
    """Return what the field is, where its class says it."""
    holder = classes[-2] if len(classes) > 1 else None
    if isinstance(holder, type) and path[-1] in holder.model_fields:
        return holder.model_fields[str(path[-1])].description or ""
    return ""


def _keys(holder: _Owner) -> list[str]:
    """Return the keys that a mapping of this class may have."""
    assert isinstance(holder, type)
    return [*holder.model_fields, *(["defaults"] if "stages" in holder.model_fields else [])]


def _meant(key: str, keys: list[str]) -> str:
    """Return the key that an unknown one may be, by its meaning or by its spelling."""
    synonym = _SYNONYMS.get(key, "")
    return synonym if synonym in keys else nearest(key, keys)


def _unknown_key(key: str, path: NodePath, classes: list[_Owner]) -> Problem:
    """Return what is wrong with the key: its spelling, its place, or the kind that has it."""
    keys = _keys(classes[-2])
    meant = _meant(key, keys)
    suggestion = f"did you mean {meant!r}?" if meant else ""
    if key not in _SYNONYMS:
        suggestion = _elsewhere(key, path, classes) or suggestion
    return Problem("unknown key", allowed=", ".join(keys), suggestion=suggestion)


def _elsewhere(key: str, path: NodePath, classes: list[_Owner]) -> str:
    """Return where the key would stand: above, in another kind of its node, or just below."""
    for length in range(len(path) - 2, -1, -1):
        owner = classes[length]
        if isinstance(owner, type) and key in owner.model_fields and not _in_list(path, length):
            place = dotted((*path[:length], key))
            return f"it stands at the top level: {place}" if not length else f"it is {place}"
    parent, node = classes[-3] if len(classes) > 2 else None, classes[-2]
    if isinstance(parent, type) and isinstance(path[-2], str):
        siblings = _classes(parent.model_fields[path[-2]].annotation)
        kinds = [_kind(one) for one in siblings if one is not node and key in one.model_fields]
        if kinds:
            return f"only kind {' and '.join(kinds)} has it"
    if isinstance(node, type):
        below = [
            name
            for name, field in node.model_fields.items()
            if any(key in one.model_fields for one in _classes(field.annotation))
        ]
        if len(below) == 1:
            return f"it is a field of {below[0]}"
    return ""


def _in_list(path: NodePath, length: int) -> bool:
    """Say whether the node at that length is a list, which has no keys."""
    return length < len(path) and isinstance(path[length], int)
