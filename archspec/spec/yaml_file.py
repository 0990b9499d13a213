"""YAML text -> plain tree, with the position of every node.

PyYAML's traps are closed: `1e-4` is a number, only true and false are booleans, a repeated key
is an error, and a hostile file (huge, deep, or expanding aliases) is refused before it is built.
Its parser in Python is used everywhere: that in C takes other texts, and places an empty item of a
list elsewhere.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from archspec.spec.words import did_you_mean
from blocks.errors import Place, Problem, SpecError, reason

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 20_000
_SURROGATE = re.compile("[\ud800-\udfff]")

NodePath = tuple[str | int, ...]

_SCALARS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
    "null": lambda text: None,
    "str": str,
}


class _Composer(yaml.SafeLoader):
    """Scalars of YAML 1.2, instead of PyYAML's 1.1, and at most so many nodes and levels."""

    def __init__(self, text: str, place: Place) -> None:
        super().__init__(text)
        self.place = place
        self.nodes = 0
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            at = _position(self.place, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
            raise too_large(at) if self.nodes > MAX_NODES else too_deep(at)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Composer.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Composer.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


@dataclass(frozen=True)
class Source:
    """A tree and where its nodes stand; lists are tuples, as frozen specs want them.

    `problems` are mistakes of the text that left a tree all the same: who validates it tells them
    with its own.
    """

    name: str
    tree: Any
    marks: dict[NodePath, Place] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def where(self, path: NodePath) -> Place:
        """Return the position of the node, or of its nearest ancestor, or the source's name."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return Place(self.name)


def _meant(path: Path) -> str:
    """Return a question with the file beside it that may have been meant."""
    try:
        beside = [one.name for one in path.parent.iterdir() if one.suffix == path.suffix]
    except OSError:
        return ""
    return did_you_mean(path.name, beside)


def read_text(path: Path) -> str:
    """Return the file's text.

    Raises:
        SpecError: the file cannot be read, is over 1 MiB or is not UTF-8.
    """
    try:
        size, is_file = path.stat().st_size, path.is_file()
        text = path.read_text(encoding="utf-8") if is_file and size <= MAX_BYTES else ""
    except OSError as error:
        meant = _meant(path) if isinstance(error, FileNotFoundError) else ""
        problem = f"cannot be read: {reason(error)}"
        raise SpecError(problem, where=path, suggestion=meant) from None
    except UnicodeDecodeError:
        raise SpecError("not UTF-8 text", where=path) from None
    except ValueError as error:  # a path that no system takes
        raise SpecError(f"cannot be read: {reason(error)}", where=path) from None
    if not is_file:
        raise SpecError("not a file", where=path, suggestion="give the .yaml file itself")
    if size > MAX_BYTES:
        raise SpecError("larger than 1 MiB; a spec is a few kilobytes", where=path)
    return text


def parse(text: str, name: str | Place) -> Source:
    """Parse one YAML document; `name` is its file, or the override that it stands in.

    Raises:
        SpecError: as `compose`, and for the problems that it leaves to others.
    """
    source = compose(text, name)
    if source.problems:
        raise SpecError(source.problems)
    return source


@functools.lru_cache(maxsize=4)  # a verb looks at a text, and then a function loads it
def compose(text: str, name: str | Place) -> Source:
    """Return the tree of one YAML document, with what is wrong in it but leaves a tree.

    Raises:
        SpecError: not YAML, more than 64 levels or 20,000 nodes.
    """
    place = name if isinstance(name, Place) else Place(name)
    try:
        node = _Composer(text, place).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = _position(place, mark) if mark else place
        raise SpecError(f"not valid YAML: {error.problem or error.context}", where=at) from None
    except yaml.YAMLError as error:
        raise SpecError(f"not valid YAML: {reason(error)}", where=place) from None
    if node is None:
        raise SpecError("empty; it must hold a mapping", where=place)
    builder = _Builder(place)
    tree = builder.build(node, ())
    return Source(str(place), tree, builder.marks, tuple(builder.problems))


def too_large(at: Place) -> SpecError:
    """Return what to raise for more nodes than a text may have."""
    return SpecError(f"too large; at most {MAX_NODES:,} nodes, aliases written out", where=at)


def too_deep(at: Place) -> SpecError:
    """Return what to raise for more levels than a text may have."""
    return SpecError(f"nested too deeply; at most {MAX_DEPTH} levels", where=at)


def _position(place: Place, mark: yaml.Mark) -> Place:
    """Return where in the file the mark is; an override is one place."""
    return place if place.kind != "file" else Place(place.name, mark.line + 1, mark.column + 1)


_NO_TEXT = "holds half of a surrogate pair, which is no text"


class _Builder:
    """Turn YAML nodes into plain values, noting positions, and problems that leave a value."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.marks: dict[NodePath, Place] = {}
        self.nodes = 0
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, path: NodePath) -> Any:
        at = _position(self.place, node.start_mark)
        self.nodes += 1
        if len(path) > MAX_DEPTH:
            raise too_deep(at)
        if self.nodes > MAX_NODES:
            raise too_large(at)
        self.marks.setdefault(path, at)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return tuple(self.build(item, (*path, i)) for i, item in enumerate(node.value))
        if tag not in _SCALARS or not isinstance(node, yaml.ScalarNode):
            return self._note(f"tag {node.tag!r} is not used in specs", path, at, "remove it")
        if _SURROGATE.search(node.value):
            return self._note(_NO_TEXT, path, at)
        try:
            return _SCALARS[tag](node.value)
        except ValueError:
            return self._note(f"{node.value[:20]!r} cannot be read as {tag}", path, at)

    def _mapping(self, node: yaml.MappingNode, path: NodePath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, at = key_node.value, _position(self.place, key_node.start_mark)
            if not isinstance(key, str):
                self._note("a key must be a word", path, at)
                continue
            if _SURROGATE.search(key):
                self._note(f"a key {_NO_TEXT}", path, at)
                continue
            below = (*path, key)
            if key in found:
                self._note("duplicate key", below, at, "keep one of them")
                continue
            self.marks[below] = at
            found[key] = self.build(value_node, below)
        return found

    def _note(self, problem: str, path: NodePath, at: Place, suggestion: str = "") -> None:
        """Keep the problem; nothing stands in the node's place."""
        self.problems.append(Problem(problem, at, dotted(path), suggestion=suggestion))


def dotted(path: NodePath) -> str:
    """Return the path as users write it: encoder.stages.0.width."""
    return ".".join(str(p) if str(p).isprintable() else repr(p) for p in path)


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back: words that look like YAML 1.2 scalars are quoted."""


_Dumper.yaml_implicit_resolvers = _Composer.yaml_implicit_resolvers


def dump(tree: Any) -> str:
    """Return the tree as YAML that `parse` reads back identically."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)
    return text


def dump_inline(tree: Any) -> str:
    """Return the tree as YAML on one line."""
    options: dict[str, Any] = {"default_flow_style": True, "width": float("inf")}
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, **options)
    return text.removesuffix("\n").removesuffix("\n...")
