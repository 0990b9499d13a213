"""A library's refusal as the command line words it: with its options in place of arguments."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import typer
from typer.core import TyperCommand

from blocks.errors import Place, Problem, SpecError, render

OPTIONS = {
    "patch_size": "patch",
    "batch_size": "batch",
    "plans_name": "plans",
    "folder": "out",
    "devices": "device",
    "overrides": "set",
}
"""What functions call an argument -> what the verbs call the option for it."""


def refusal_lines(
    error: SpecError, command: TyperCommand | None, words: Sequence[str]
) -> list[str]:
    """Return the lines to print for what was refused in these words of the command line."""
    options = {} if command is None else _options(command)
    typed = {word.partition("=")[0] for word in words}
    problems = [_typed(one, options, typed) for one in error.problems]
    return render(problems).splitlines()


def with_options(text: str, context: typer.Context) -> str:
    """Return the text with the verb's options in place of arguments in backquotes."""
    assert isinstance(context.command, TyperCommand)
    return _named(text, _options(context.command))


def _options(command: TyperCommand) -> dict[str, str]:
    """Return the verb's options by the names of the arguments that they stand for."""
    own = {
        str(param.name).rstrip("_"): max(param.opts, key=len)
        for param in command.params
        if param.opts and param.opts[0].startswith("-")
    }
    known = {argument: own[name] for argument, name in OPTIONS.items() if name in own}
    return {**known, **own}


def _typed(one: Problem, options: Mapping[str, str], typed: set[str]) -> Problem:
    """Return the problem with an argument's place as the option that was typed for it."""
    named = replace(
        one, problem=_named(one.problem, options), suggestion=_named(one.suggestion, options)
    )
    where = one.where
    if where is None or where.kind != "argument" or options.get(where.name) not in typed:
        return named
    value = where.value
    shown = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return replace(named, where=Place(options[where.name], kind="option", value=shown))


def _named(text: str, options: Mapping[str, str]) -> str:
    return re.sub(r"`(\w+)`", lambda found: options.get(found[1], found[0]), text)
