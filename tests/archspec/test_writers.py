"""Everything that is written goes through archspec/files.py, by the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOOR = "archspec/files.py"
OTHERS = {
    "archspec/costs/measure.py": "tells the system to forget a peak: no file",
    "archspec/cli/interrupts.py": "turns output away from a terminal that is gone",
}
"""Modules that write elsewhere, and what that is."""

METHODS = {
    *("write_text", "write_bytes", "savefig", "mkdir", "touch", "rename", "symlink_to", "to_csv"),
    *("makedirs", "copyfile", "copy2", "copytree", "savez", "savez_compressed"),
    *("mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile"),
    *("hardlink_to", "tofile", "dump_all"),
}
SAVERS = {
    *("torch.save", "np.save", "numpy.save", "nibabel.save", "nib.save", "json.dump"),
    *("shutil.copy", "shutil.move"),
}
"""Of modules; `save` or `copy` alone is the method of many things."""
NAMES = {"save_file", "copyfile", "NamedTemporaryFile", "TemporaryDirectory", "mkdtemp"}


def _opens_to_write(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in ("open", "fdopen"):
        return False
    of_os = isinstance(function, ast.Attribute) and ast.unparse(function.value) == "os"
    if of_os and name == "open":
        return True
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    modes = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)


def _partials(tree: ast.AST) -> set[str]:
    """Return the names of what `with replacing(...) as name` yields, and of files opened there."""
    found: set[str] = set()
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With) else ():
            call = item.context_expr
            if not isinstance(call, ast.Call) or not isinstance(item.optional_vars, ast.Name):
                continue
            function = call.func
            by_name = isinstance(function, ast.Name) and function.id == "replacing"
            inside = (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Name)
                and function.value.id in found
            )
            if by_name or inside:
                found.add(item.optional_vars.id)
    return found


def writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where something is written that is no partial file of the door's."""
    partials = _partials(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = ast.unparse(function)
        method = isinstance(function, ast.Attribute) and function.attr in METHODS
        if not (method or name in SAVERS or name in NAMES or _opens_to_write(node)):
            continue
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if not used & partials:
            yield node.lineno, name


def modules() -> list[str]:
    folders = ("archspec", "search", "blocks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def test_everything_is_written_through_the_door() -> None:
    found = {
        f"{name}:{line}": what
        for name in modules()
        if name != DOOR and name not in OTHERS
        for line, what in writes(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    }
    assert not found


def test_the_others_write() -> None:
    """A module that stands in the list for nothing is taken out of it."""
    for name in (DOOR, *OTHERS):
        assert list(writes(ast.parse((ROOT / name).read_text(encoding="utf-8")))), name


@pytest.mark.parametrize(
    "code",
    [
        "path.write_text('a')",
        "open(path, 'w')",
        "path.open(mode='ab+')",
        "os.open(path, flags)",
        "torch.save(state, path)",
        "np.savez_compressed(path)",
        "picture.savefig(path)",
        "folder.mkdir()",
        "shutil.copyfile(old, new)",
        "tempfile.mkdtemp()",
        "json.dump(tree, file)",
    ],
)
def test_a_writer_is_found(code: str) -> None:
    assert list(writes(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "open(path)",
        "path.open('rb')",
        "with replacing(path) as partial, partial.open('wb') as file:\n    torch.save(1, file)",
        "with replacing(path) as partial:\n    picture.savefig(partial)",
        "copy.copy(tree)",
        "write_text(path, 'a')",
    ],
)
def test_what_goes_through_the_door_is_none(code: str) -> None:
    assert not list(writes(ast.parse(code)))
