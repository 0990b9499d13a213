"""Dataclasses again from what this or another release wrote down."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def from_record(kind: type[T], record: Mapping[str, Any]) -> T:
    """Return the dataclass; what a record lacks takes its default, what is unknown is left out.

    So a field that is added later needs a default that says what was done before.

    Raises:
        TypeError: the record lacks fields that have no default, or is none.
    """
    if not isinstance(record, Mapping):
        raise TypeError("not a mapping")
    own = fields(kind)
    needed = [f.name for f in own if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in record]
    if missing:
        raise TypeError(f"{', '.join(missing)} missing")
    return kind(**{f.name: record[f.name] for f in own if f.name in record})
