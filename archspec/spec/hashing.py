"""Fingerprints of specs: which networks are the same, and which trainings.

A hash starts with its version (`h1:`) and stays what it is: every field of the first schema is
digested, whatever its value, so every `kind` is; a field that is `Added` later is digested only
where it differs from the value that it was introduced with. Hashes that were written down before
there were versions have none in front, and `is_hash_of` knows them.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import BaseModel

from archspec.spec.schema import ArchSpec
from blocks.base import Added

_LABELS = frozenset({"schema_version", "name", "title", "sources", "claims"})
_NOT_WEIGHTS = _LABELS | {"training", "init", "patch_size"}

VERSION = "h1:"
"""What hashes that are written today start with."""

Kind = Literal["arch", "trial"]


def arch_hash(spec: ArchSpec) -> str:
    """Return `h1:` and 16 hex digits, equal where weights of one spec fit the other."""
    return VERSION + _digest(_tree(spec, leave_out=_NOT_WEIGHTS))


def trial_hash(spec: ArchSpec) -> str:
    """Return `h1:` and 16 hex digits, equal where architecture and training recipe are equal."""
    return VERSION + _digest(_tree(spec, leave_out=_LABELS))


def is_hash_of(stored: str, spec: ArchSpec, kind: Kind) -> bool:
    """Say whether a hash that was written down, by whichever version, is the spec's."""
    if stored.startswith(VERSION):
        return stored == (arch_hash(spec) if kind == "arch" else trial_hash(spec))
    leave_out = _NOT_WEIGHTS if kind == "arch" else _LABELS
    return stored == _digest({**_tree(spec, leave_out=leave_out), "schema_version": 1})


def _tree(value: Any, leave_out: Collection[str] = ()) -> Any:
    """Return what is digested: plain dicts, lists and scalars."""
    if isinstance(value, BaseModel):
        found = {}
        for name, field in type(value).model_fields.items():
            if name in leave_out:
                continue
            digested = _tree(getattr(value, name))
            added = next((mark for mark in field.metadata if isinstance(mark, Added)), None)
            if added is None or digested != _tree(added.default):
                found[name] = digested
        return found
    if isinstance(value, Mapping):
        return {key: _tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tree(item) for item in value]
    return value


def _digest(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
