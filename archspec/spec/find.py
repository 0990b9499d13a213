"""From a name, a file or a mapping to its raw tree, or to why there is none.

Nothing here imports torch, so that the command line refuses a name at once.
"""

import fnmatch
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from archspec.spec.bundled import bundled, bundled_names
from archspec.spec.tree import check_size, frozen, node_at, with_node
from archspec.spec.words import did_you_mean
from archspec.spec.yaml_file import Source, compose, read_text
from archspec.text import command_line
from blocks.errors import Place, SpecError


def list_specs(pattern: str = "*") -> list[str]:
    """Return the names of the bundled specs that match the shell pattern."""
    return fnmatch.filter(bundled_names(), pattern)


def load_tree(source: str | Path | Mapping[str, Any]) -> Source:
    """Return the raw tree of a spec and its positions, not yet validated.

    Problems of the text that leave a tree are kept in the source for the validation.

    Raises:
        SpecError: no such bundled spec or file, or not YAML.
    """
    if isinstance(source, Mapping):
        check_size(source, Place("spec"))
        return Source("spec", frozen(source))
    if not isinstance(source, str | os.PathLike):
        raise SpecError(
            "not a spec",
            where=repr(source),
            suggestion="give a bundled name, a .yaml file or a mapping",
        )
    text = os.fsdecode(source)
    names = list_specs()
    if isinstance(source, Path) or text.endswith((".yaml", ".yml")) or os.sep in text:
        stem = text.removesuffix(".yaml")
        if isinstance(source, Path) or stem not in names or Path(text).exists():
            return with_files(compose(read_text(Path(text)), text), Path(text).parent)
        text = stem
    if text in bundled_names("search"):
        raise is_a_space(text)
    if text not in names:
        raise _unknown("spec", text, names)
    return bundled(text)


def space_tree(source: str | Path) -> Source:
    """Return the raw tree of a search space and its positions, not yet validated.

    Raises:
        SpecError: no such bundled space or file, or not YAML.
    """
    path, names = Path(source), bundled_names("search")
    if str(source) in names:
        return bundled(str(source), "search")
    if path.suffix not in (".yaml", ".yml"):
        raise _unknown("space", str(source), names)
    return with_files(compose(read_text(path), str(source)), path.parent)


def with_files(source: Source, folder: Path) -> Source:
    """Return the source with the file of `encoder.pretrained` as it is found from this folder.

    Members of a choice there are files as well.
    """
    path = ("encoder", "pretrained")
    value = node_at(source.tree, path)
    choice = value.get("choice") if isinstance(value, Mapping) else None
    if isinstance(value, str):
        found: Any = _in_folder(value, folder)
    elif isinstance(choice, tuple):
        found = {**value, "choice": tuple(_in_folder(one, folder) for one in choice)}
    else:
        return source
    return replace(source, tree=with_node(source.tree, path, found))


def _in_folder(value: Any, folder: Path) -> Any:
    return str(folder.absolute() / value) if isinstance(value, str) and value else value


def is_a_space(name: str) -> SpecError:
    """Return what to raise for a space that stands where a spec is asked for."""
    return SpecError(
        "a search space, not one network",
        where=name,
        suggestion=f"try {command_line('archspec', 'validate', name)}, or archspec search and then "
        "archspec best for networks from it",
    )


def _unknown(what: str, name: str, names: Sequence[str]) -> SpecError:
    return SpecError(
        f"not a bundled {what}, and not a .yaml file",
        where=name,
        allowed=", ".join(names),
        suggestion=did_you_mean(name, names),
    )
