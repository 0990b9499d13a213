"""Which places refuse, and which of them were reached: modules are marked as they are imported.

A place is a `raise` of anything, or the making of a `Problem`, which something raises later. Marks
are put into the syntax tree, not the text, and cost nothing until a place is reached.
"""

import ast
import builtins
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
LOADER_AND_PLAN = (
    "archspec.spec",
    *(f"archspec.network.{name}" for name in ("bounds", "plan", "resolve", "stages", "strides")),
    "blocks",
)
SPACES = ("search.space",)
NOT_A_LOADER = ("blocks.scan", "blocks.registry", "archspec.spec.reference")
"""Kernels refuse tensors, the registry classes of Python; the last writes the reference."""
_MADE = {"Problem", "Mistake", "PydanticKnownError"}
_MARK = "_reached_by_fuzz"

reached: set[str] = set()
"""Places, `file:line`, that were reached in this process."""


def _reach(place: str, value: Any) -> Any:
    reached.add(place)
    return value


class _Marks(ast.NodeTransformer):
    """Wrap what is raised, and what makes problems; `places` are found on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: set[str] = set()

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.generic_visit(node)
        if node.exc is not None:
            node.exc = self._wrapped(node.exc)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        made = isinstance(node.func, ast.Name) and node.func.id in _MADE
        return self._wrapped(node) if made else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Leave out methods that work on tensors: they run when a network does."""
        return node if node.name == "forward" else self.generic_visit(node)

    def _wrapped(self, value: ast.expr) -> ast.expr:
        place = f"{self.file}:{value.lineno}"
        self.places.add(place)
        call = ast.Call(ast.Name(_MARK, ast.Load()), [ast.Constant(place), value], [])
        return ast.copy_location(call, value)


def _marked(path: Path) -> tuple[ast.Module, set[str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = _Marks(path.relative_to(ROOT).as_posix())
    return ast.fix_missing_locations(marks.visit(tree)), marks.places


def _is_watched(name: str, prefixes: Sequence[str]) -> bool:
    def below(prefix: str) -> bool:
        return name == prefix or name.startswith(f"{prefix}.")

    return any(map(below, prefixes)) and not any(map(below, NOT_A_LOADER))


def places(prefixes: Sequence[str]) -> set[str]:
    """Return every place of the modules below these names."""
    files = [path for prefix in prefixes for path in _files(ROOT / prefix.replace(".", "/"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    return {
        place for path in files if _is_watched(names[path], prefixes) for place in _marked(path)[1]
    }


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


class _Loader(importlib.machinery.SourceFileLoader):
    """Compile the marked tree, past the cache of what is not marked."""

    def get_code(self, fullname: str) -> CodeType:
        tree, _ = _marked(Path(self.path))
        return compile(tree, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not _is_watched(fullname, (*LOADER_AND_PLAN, *SPACES)):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def watch() -> None:
    """Mark the modules that are imported from now on."""
    setattr(builtins, _MARK, _reach)
    sys.meta_path.insert(0, _Finder())
