"""YAML text -> plain tree, with the position of every node.

PyYAML's traps are closed: `1e-4` is a number, only true and false are booleans, a repeated key
is an error, and a hostile file (huge, deep, or expanding aliases) is refused before it is built.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from blocks.base import SpecError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 100_000

NodePath = tuple[str | int, ...]

_SCALARS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
    "null": lambda text: None,
    "str": str,
}


class _Resolver(yaml.SafeLoader):
    """YAML 1.2 scalars, instead of PyYAML's 1.1."""


_Resolver.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Resolver.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


@dataclass(frozen=True)
class Source:
    """A tree and where its nodes stand: path -> text such as `net.yaml:12:7`."""

    name: str
    tree: Any
    marks: dict[NodePath, str] = field(default_factory=dict)

    def where(self, path: NodePath) -> str:
        """Return the position of the node, or of its nearest ancestor, or the source's name."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return self.name


def read_text(path: Path) -> str:
    """Return the file's text.

    Raises:
        SpecError: the file cannot be read, is over 1 MiB or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SpecError(f"{path}: not a file; give the .yaml file itself")
        if size > MAX_BYTES:
            raise SpecError(f"{path}: larger than 1 MiB; a spec is a few kilobytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text") from None


def parse(text: str, name: str) -> Source:
    """Parse one YAML document; lists become tuples, as frozen specs want them.

    Raises:
        SpecError: not YAML, a duplicate key, more than 64 levels or 100,000 nodes.
    """
    try:
        node = yaml.compose(text, Loader=_Resolver)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SpecError(f"{at}  not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{name}  not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise SpecError(f"{name}: nested too deeply; at most {MAX_DEPTH} levels") from None
    if node is None:
        raise SpecError(f"{name}: empty; it must hold a mapping")
    marks: dict[NodePath, str] = {}
    tree = _Builder(name, marks).build(node, ())
    return Source(name, tree, marks)


class _Builder:
    """Turn YAML nodes into plain values, noting positions."""

    def __init__(self, name: str, marks: dict[NodePath, str]) -> None:
        self.name = name
        self.marks = marks

    def build(self, node: yaml.Node, path: NodePath) -> Any:
        at = self._at(node)
        if len(path) > MAX_DEPTH:
            raise SpecError(f"{at}  nested too deeply; at most {MAX_DEPTH} levels")
        if len(self.marks) > MAX_NODES:
            raise SpecError(f"{at}  too large; at most {MAX_NODES} nodes, aliases written out")
        self.marks.setdefault(path, at)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return tuple(self.build(item, (*path, i)) for i, item in enumerate(node.value))
        if tag not in _SCALARS or not isinstance(node, yaml.ScalarNode):
            raise SpecError(f"{at}  tag {node.tag!r} is not used in specs; remove it")
        try:
            return _SCALARS[tag](node.value)
        except ValueError:
            raise SpecError(f"{at}  {node.value[:20]!r} cannot be read as {tag}") from None

    def _mapping(self, node: yaml.MappingNode, path: NodePath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, at = key_node.value, self._at(key_node)
            if not isinstance(key, str):
                raise SpecError(f"{at}  a key must be a word")
            if key in found:
                raise SpecError(f"{at}  {dotted((*path, key))}: duplicate key; keep one of them")
            self.marks[(*path, key)] = at
            found[key] = self.build(value_node, (*path, key))
        return found

    def _at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def dotted(path: NodePath) -> str:
    """Return the path as users write it: encoder.stages.0.width."""
    return ".".join(str(p) if str(p).isprintable() else repr(p) for p in path)


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back: words that look like YAML 1.2 scalars are quoted."""


_Dumper.yaml_implicit_resolvers = _Resolver.yaml_implicit_resolvers


def dump(tree: Any) -> str:
    """Return the tree as YAML that `parse` reads back identically."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)
    return text
