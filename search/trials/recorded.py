"""Dataclasses again from what this or another release wrote down, and back."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

OTHER = "other"
"""The field of a dataclass for what it does not know, so that writing it again loses nothing."""


def from_record(kind: type[T], record: Mapping[str, Any]) -> T:
    """Return the dataclass; what a record lacks takes its default.

    What is unknown goes into the field `other` where there is one, and is left out else. A field
    that is added later needs a default that says what was done before.

    Raises:
        TypeError: the record lacks fields that have no default, or is none.
    """
    if not isinstance(record, Mapping):
        raise TypeError("not a mapping")
    known, needed, keeps = _fields(kind)
    missing = [name for name in needed if name not in record]
    if missing:
        raise TypeError(f"{', '.join(missing)} missing")
    found = {name: record[name] for name in known if name in record}
    if keeps:
        found[OTHER] = {name: value for name, value in record.items() if name not in known}
    return kind(**found)


@cache
def _fields(kind: "type[DataclassInstance]") -> tuple[dict[str, None], list[str], bool]:
    """Return the names of the fields, in order, those without default, and is one `other`."""
    own = [field for field in fields(kind) if field.name != OTHER]
    needed = [f.name for f in own if f.default is MISSING and f.default_factory is MISSING]
    return dict.fromkeys(field.name for field in own), needed, len(own) < len(fields(kind))


def to_record(one: "DataclassInstance") -> dict[str, Any]:
    """Return the fields as they are, and with them what was unknown when it was read."""
    found = dict(vars(one))
    other = found.pop(OTHER, {})
    return {**found, **other}
