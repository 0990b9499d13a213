"""Fingerprints of specs: which networks are the same, and which trainings."""

import hashlib
import json
from typing import Any

from archspec.spec.schema import ArchSpec

_LABELS = {"name", "title", "sources", "claims"}


def arch_hash(spec: ArchSpec) -> str:
    """Return 16 hex digits, equal where weights of one spec fit the other."""
    return _digest(
        spec.model_dump(mode="json", exclude=_LABELS | {"training", "init", "patch_size"})
    )


def trial_hash(spec: ArchSpec) -> str:
    """Return 16 hex digits, equal where architecture and training recipe are equal."""
    return _digest(spec.model_dump(mode="json", exclude=_LABELS))


def _digest(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
