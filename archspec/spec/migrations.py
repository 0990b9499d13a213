"""Specs of earlier schemas, brought to the present one before they are validated."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from archspec.spec.schema import SCHEMA_VERSION
from archspec.spec.yaml_file import Source
from blocks.base import SpecError

Tree = dict[str, Any]

MIGRATIONS: dict[int, Callable[[Tree], Tree]] = {}
"""From each earlier schema to the next: a raw tree in, a new raw tree out.

A migration writes down what an older spec left to a default that is another one now. A field that
was added needs none: it is marked `Added`. In a search space any node may be a hole.
"""


def upgrade(source: Source) -> Source:
    """Return the source as the present schema writes it; one without a version is of schema 1.

    A version that is no version at all is left for the validation to refuse.

    Raises:
        SpecError: the schema is newer than this package.
    """
    tree = source.tree
    version = tree.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return source
    if version > SCHEMA_VERSION:
        raise SpecError(
            f"{version} is newer than this archspec reads ({SCHEMA_VERSION})",
            where=source.where(("schema_version",)),
            field="schema_version",
            suggestion="upgrade archspec-seg",
        )
    for older in range(version, SCHEMA_VERSION):
        tree = MIGRATIONS[older](tree)
    return replace(source, tree={**tree, "schema_version": SCHEMA_VERSION})
