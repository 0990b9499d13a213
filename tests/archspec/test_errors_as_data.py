"""No module but the renderer and two converters reads the text of an error, by the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READERS = {
    "blocks/errors.py": "renders ours, and takes the first line of what others say",
    "search/trials/faults.py": "tells faults of other libraries apart that only words tell apart",
    "search/study/earlier.py": "reads what earlier releases kept as prose",
}
_TEXT = ("startswith", "endswith", "find", "index", "count", "split", "partition", "rpartition")


def modules() -> list[Path]:
    folders = ("archspec", "search", "blocks")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _is_an_error(annotation: ast.expr | None) -> bool:
    if annotation is None:
        return False
    names = [n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)]
    return any(name.endswith(("Error", "Exception", "BaseException")) for name in names)


def error_names(tree: ast.AST) -> set[str]:
    """Return the names that hold errors: of handlers, and of parameters that are annotated so."""
    handlers = {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}
    arguments = [n for n in ast.walk(tree) if isinstance(n, ast.arg)]
    return handlers | {n.arg for n in arguments if _is_an_error(n.annotation)}


def reads_text(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where the text of an error is made into a value, or is part of a decision.

    `str(error)`, `repr(error)`, `error.args` and `format(error)` anywhere; an f-string with an
    error in it where it is compared, searched or taken apart.
    """
    errors = error_names(tree)

    def is_error(node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in errors

    def has_text(node: ast.AST) -> bool:
        texts = [n for n in ast.walk(node) if isinstance(n, ast.JoinedStr)]
        values = [v.value for t in texts for v in t.values if isinstance(v, ast.FormattedValue)]
        return any(is_error(value) for value in values)

    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in ("str", "repr", "format"):
            assert isinstance(node, ast.Call)
            if any(map(is_error, node.args)):
                yield node.lineno, f"{called.id}() of an error"
        if isinstance(node, ast.Attribute) and node.attr == "args" and is_error(node.value):
            yield node.lineno, "args of an error"
        if isinstance(node, ast.Compare) and has_text(node):
            yield node.lineno, "an error's text compared"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = [node.func.value] if node.func.attr in _TEXT else []
            texts += node.args if _is_re(node.func) else []
            if any(map(has_text, texts)):
                yield node.lineno, "an error's text searched"


def _is_re(function: ast.Attribute) -> bool:
    return isinstance(function.value, ast.Name) and function.value.id == "re"


def test_no_module_reads_the_text_of_an_error() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}": what
        for path in modules()
        if path.relative_to(ROOT).as_posix() not in READERS
        for line, what in reads_text(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_problems_are_read_by_their_fields() -> None:
    """What is wrong, and what to do, is for people: only the renderers look at those two."""
    allowed = {"blocks/errors.py", "archspec/cli/refusal.py"}
    for path in modules():
        if path.relative_to(ROOT).as_posix() in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Is | ast.IsNot):
                attributes = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                assert not attributes & {"problem", "suggestion"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "code",
    [
        "text = str(error)",
        "if 'x' in str(error): pass",
        "if f'{error}'.startswith('x'): pass",
        "if 'x' in f'{error}': pass",
        "re.match('x', f'{error}')",
        "text = error.args[0]",
    ],
)
def test_a_reader_is_found(code: str) -> None:
    handler = f"try:\n    pass\nexcept ValueError as error:\n    {code}\n"
    function = f"def f(error: SpecError) -> None:\n    {code}\n"
    assert list(reads_text(ast.parse(handler)))
    assert list(reads_text(ast.parse(function)))


def test_a_message_of_ours_may_quote_an_error() -> None:
    code = "try:\n    pass\nexcept ValueError as error:\n    raise SpecError(f'wrong: {error}')\n"
    assert not list(reads_text(ast.parse(code)))


def test_the_readers_read() -> None:
    """A file that stands in the list for nothing is taken out of it."""
    for name in READERS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert list(reads_text(ast.parse(text))) or name == "search/study/earlier.py"
