"""Wrong usage of any verb: one line that names the option and what it takes, and exit code 2."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer

from archspec.cli.main import app

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def numbers() -> list[Any]:
    """Return each verb with each of its options that have a least value, and that value."""
    found = []
    for command in app.registered_commands:
        assert command.callback is not None
        verb = command.name or command.callback.__name__
        parameters = inspect.signature(command.callback).parameters
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            for info in getattr(hint, "__metadata__", ()):
                if name in parameters and info.min is not None:
                    option = f"--{name.rstrip('_').replace('_', '-')}"
                    found.append(pytest.param(verb, option, info.min, id=f"{verb}{option}"))
    return found


@pytest.mark.parametrize(("verb", "option", "least"), numbers())
def test_a_number_out_of_range(refused: Refused, verb: str, option: str, least: float) -> None:
    low = int(least) - 1
    line = refused((verb, option, low))
    assert line == f"archspec: {option}: must be at least {least:g}, got {low}\n"


def bounded() -> list[Any]:
    """Return each verb with each of its options that take a number, and the largest."""
    found = []
    for command in app.registered_commands:
        assert command.callback is not None
        verb = command.name or command.callback.__name__
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
            if {int, float} & {kind, *get_args(kind)}:
                option = f"--{name.rstrip('_').replace('_', '-')}"
                most = next((mark.max for mark in marks), None)
                found.append(pytest.param(verb, option, most, id=f"{verb}{option}"))
    return found


CHECKED_AS_SETTINGS = ("--max-gflops", "--max-params", "--test-share")


@pytest.mark.parametrize(("verb", "option", "most"), bounded())
def test_a_number_that_is_too_large(
    refused: Refused, verb: str, option: str, most: float | None
) -> None:
    if verb == "search" and option in CHECKED_AS_SETTINGS:
        return
    assert most is not None
    for value in ("9999999999999999999", "9" * 5000, "1e400", "inf", "nan"):
        assert refused((verb, option, value)).startswith(f"archspec: {option}: must be a")


def test_the_ranges_are_found() -> None:
    names = {case.id for case in numbers()}
    assert {"search--trials", "demo--jobs", "describe--batch", "evaluate--tolerance"} <= names


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("describe", "unet", "--batch", "two"), "--batch: must be an integer, got two"),
        (("describe", "unet", "--batch", ""), "--batch: must be an integer, got ''"),
        (("evaluate", "a", "b", "--tolerance", "x"), "--tolerance: must be a number, got x"),
        (("evaluate", "a", "b", "--tolerance", "2e6"), "--tolerance: must be at most 1e+06"),
        (("describe", "unet", "--ptach", "1"), "no such option: --ptach; did you mean --batch"),
        (("describe", "unet", "--quux"), "no such option: --quux; see archspec describe --help"),
        (("descrbe", "unet"), "no such command 'descrbe'; did you mean 'describe'?"),
        (("\x1b[31m\udc80",), "no such command '\\x1b[31m\\udc80'; see archspec --help"),
        (("foo",), "no such command 'foo'; see archspec --help"),
        (("--foo",), "no such option: --foo; see archspec --help"),
        (("describe", "unet", "--batch"), "option '--batch' requires an argument; see"),
        (("validate", "unet", "unet"), "got unexpected extra argument(s) (unet); see"),
        (("overfit", "unet"), "missing option '--data'; see archspec overfit --help"),
        (("diff",), "missing argument 'a'; see archspec diff --help"),
    ],
)
def test_wrong_usage(refused: Refused, arguments: tuple[str, ...], line: str) -> None:
    assert refused(arguments).startswith(f"archspec: {line}")


def test_help_is_a_page(cli: Cli) -> None:
    code, out, err = cli("describe", "--help")
    assert (code, err) == (0, "") and "archspec describe [OPTIONS] {specs}" in out


@pytest.mark.parametrize(
    ("ending", "code"), [(typer.Exit(1), 1), (typer.Exit(130), 130), (KeyboardInterrupt(), 130)]
)
def test_other_endings(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, ending: BaseException, code: int
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise ending

    monkeypatch.setattr("archspec.cli.specs.list_specs", stop)
    assert cli("list")[0] == code
