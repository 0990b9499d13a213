"""The YAML files that come with the package: specs, search spaces, key tables, papers' figures."""

import importlib.resources
from pathlib import Path
from typing import Any, Literal

from archspec.spec.yaml_file import Source, parse

Section = Literal["", "search", "keys", "fidelity"]
"""A folder of specs/; the specs themselves stand at its top."""


def bundled_names(section: Section = "") -> list[str]:
    """Return the names of the section's files, without `.yaml`, in order."""
    names = (file.name for file in _folder(section).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def bundled(name: str, section: Section = "") -> Source:
    """Return the file of that name, which must be there."""
    file = f"{name}.yaml"
    text = (_folder(section) / file).read_text(encoding="utf-8")
    return parse(text, f"{section}/{file}" if section else file)


def schema_file(of: Literal["spec", "space"]) -> Path:
    """Return the JSON Schema by which editors complete such files; that of our components alone."""
    return Path(str(_folder("") / f"{of}.schema.json"))


def _folder(section: Section) -> Any:
    folder: Any
    try:
        folder = importlib.resources.files("archspec.specs")
    except ModuleNotFoundError:  # a checkout that is not installed: setup.py gives specs/ that name
        folder = Path(__file__).parents[2] / "specs"
    return folder / section if section else folder
