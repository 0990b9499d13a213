"""What a shell completes: names of specs, fields after -s, run folders, datasets. Without torch."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from archspec.spec.bundled import bundled_names, schema_file
from archspec.spec.find import load_tree, space_tree
from blocks.errors import SpecError

Schema = Mapping[str, Any]

_RUN = "run.json"
_PREPROCESSED = "nnUNet_preprocessed"
_NOT_SET = ("schema_version", "claims", "sources", "network")
"""Fields that nobody overrides for a trial."""


def specs(incomplete: str) -> list[str]:
    """Return bundled specs and YAML files, with folders on the way to more."""
    return [*_starting(bundled_names(), incomplete), *_files(incomplete)]


def spaces(incomplete: str) -> list[str]:
    """Return bundled spaces and YAML files."""
    return [*_starting(bundled_names("search"), incomplete), *_files(incomplete)]


def specs_and_spaces(incomplete: str) -> list[str]:
    """Return bundled specs and spaces, and YAML files."""
    return [*_starting(bundled_names("search"), incomplete), *specs(incomplete)]


def run_folders(incomplete: str) -> list[str]:
    """Return folders of searches, and those that hold one."""
    found = []
    for path in _paths(incomplete):
        if path.is_dir() and (path / _RUN).is_file():
            found.append(str(path))
        elif path.is_dir() and any(path.glob(f"*/{_RUN}")):
            found.append(f"{path}{os.sep}")
    return found


def datasets(incomplete: str) -> list[str]:
    """Return the datasets that nnU-Net has preprocessed."""
    root = os.environ.get(_PREPROCESSED)
    names = [path.name for path in Path(root).glob("Dataset*_*")] if root else []
    return _starting(sorted(names), incomplete)


def fields(context: typer.Context, incomplete: str) -> list[str]:
    """Return the paths of fields of the spec, or space, that stands before on the line."""
    tree = _tree_of(context)
    if tree is None:
        return []
    schema, space = json.loads(_text("spec")), json.loads(_text("space"))
    found = [f"{path}=" for path in _below(schema, schema["$defs"], [tree])]
    if isinstance(tree, Mapping) and "search" in tree:
        settings = _below(space["$defs"]["SearchSettings"], space["$defs"], [tree["search"]])
        found += [f"search.{path}=" for path in settings]
    return _starting(found, incomplete)


def _text(of: Literal["spec", "space"]) -> str:
    return schema_file(of).read_text(encoding="utf-8")


def _starting(names: Sequence[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str) -> list[Path]:
    folder, name = os.path.split(incomplete)
    try:
        found = sorted(Path(folder or ".").iterdir())
    except OSError:
        return []
    return [Path(folder) / one.name for one in found if one.name.startswith(name or "")]


def _files(incomplete: str) -> list[str]:
    shown = [path for path in _paths(incomplete) if not path.name.startswith(".")]
    yaml = [str(path) for path in shown if path.suffix in (".yaml", ".yml")]
    return yaml + [f"{path}{os.sep}" for path in shown if path.is_dir()]


def _tree_of(context: typer.Context) -> Any:
    """Return the raw tree of the network or space that the line names; None without one.

    While the value of -s is missing, the words before it are not parsed.
    """
    words = [*context.args]
    for name in ("spec", "specs", "space", "a"):
        value = context.params.get(name)
        words += [value] if isinstance(value, str) else value or ()
    for word in words:
        try:
            return (space_tree if word in bundled_names("search") else load_tree)(word).tree
        except SpecError:
            continue
    return None


def _below(schema: Schema, defs: Schema, written: Sequence[Any]) -> Iterator[str]:
    """Yield the paths of the fields of a mapping; `written` is what stands there, nearest first."""
    found = [one for one in written if isinstance(one, Mapping)]
    forms = [one for one in _forms(schema, defs) if "properties" in one]
    usual = schema.get("default")
    named = [*found, usual] if isinstance(usual, Mapping) else found
    kind = next((one["kind"] for one in named if "kind" in one), None)
    of_kind = [one for one in forms if one["properties"].get("kind", {}).get("const") == kind]
    for form in (of_kind or forms)[:1]:
        for name, field in form["properties"].items():
            if name in _NOT_SET or name == "defaults":
                continue
            yield name
            inside = [one[name] for one in found if name in one]
            if name == "stages":
                yield from _stages(field, defs, found[0])
                continue
            yield from (f"{name}.{path}" for path in _below(field, defs, inside))


def _stages(field: Schema, defs: Schema, encoder: Mapping[str, Any]) -> Iterator[str]:
    stages = encoder.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, tuple) else ()):
        written = [stage, encoder.get("defaults")]
        yield from (f"stages.{index}.{path}" for path in _below(field["items"], defs, written))


def _forms(schema: Schema, defs: Schema) -> Iterator[Schema]:
    """Yield what may stand there, references followed."""
    if "$ref" in schema:
        yield from _forms(defs[schema["$ref"].rpartition("/")[2]], defs)
    elif "properties" in schema:
        yield schema
    else:
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from _forms(one, defs)
