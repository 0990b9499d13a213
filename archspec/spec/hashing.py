"""Fingerprints of specs: which networks are the same, and which trainings.

A hash starts with its version (`h1:`) and stays what it is: every field of the first schema is
digested, whatever its value, so every `kind` is; a field that is `Added` later is digested only
where it differs from the value that it was introduced with; one that is `NotWeights` is left out of
the arch hash, or of both. Hashes that were written down before there were versions have none in
front, and `is_hash_of` knows them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from archspec.spec.schema import ArchSpec
from blocks.base import Added, NotWeights

VERSION = "h1:"
"""What hashes that are written today start with."""

Kind = Literal["arch", "trial"]


def arch_hash(spec: ArchSpec) -> str:
    """Return `h1:` and 16 hex digits, equal where weights of one spec fit the other."""
    return VERSION + _digest(_tree(spec, "arch"))


def trial_hash(spec: ArchSpec) -> str:
    """Return `h1:` and 16 hex digits, equal where architecture and training recipe are equal."""
    return VERSION + _digest(_tree(spec, "trial"))


def is_hash_of(stored: str, spec: ArchSpec, kind: Kind) -> bool:
    """Say whether a hash that was written down, by whichever version, is the spec's."""
    if stored.startswith(VERSION):
        return stored == (arch_hash(spec) if kind == "arch" else trial_hash(spec))
    return stored == _digest({**_tree(spec, kind), "schema_version": 1})


def _tree(value: Any, kind: Kind) -> Any:
    """Return what is digested: plain dicts, lists and scalars."""
    if isinstance(value, BaseModel):
        found = {}
        for name, field in type(value).model_fields.items():
            marks = field.metadata
            if any(isinstance(m, NotWeights) and (m.label or kind == "arch") for m in marks):
                continue
            digested = _tree(getattr(value, name), kind)
            added = next((mark for mark in marks if isinstance(mark, Added)), None)
            if added is None or digested != _tree(added.default, kind):
                found[name] = digested
        return found
    if isinstance(value, Mapping):
        return {key: _tree(item, kind) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tree(item, kind) for item in value]
    return value


def _digest(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
