"""Wrong usage of a verb as one line: which option, what is wrong with it, what is allowed."""

import re
import shlex
from collections.abc import Collection, Sequence

import typer
from pydantic import ValidationError

from blocks.errors import printable

_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of fewer digits",
    "int_from_float": "must be an integer",
    "float_parsing": "must be a number",
}


def usage_line(error: typer.TyperException, words: Sequence[str], verbs: Collection[str]) -> str:
    """Return the line for what typer refused in these words of the command line."""
    cause = error.__cause__
    if isinstance(error, typer.BadParameter) and error.param and isinstance(cause, ValidationError):
        return f"archspec: {max(error.param.opts, key=len)}: {_rule(cause)}"
    text = error.format_message()
    text = f"{text[:1].lower()}{' '.join(text[1:].split())}".rstrip(".")
    text = re.sub(r" \(Possible options: (.*)\)$", r"; did you mean \1?", text)
    text = text.replace(". Did you mean", "; did you mean")
    verb = f"{words[0]} " if words[0] in verbs else ""
    see = f"; see archspec {verb}--help" * (not text.endswith("?"))
    return f"archspec: {printable(text)}{see}"


def _rule(invalid: ValidationError) -> str:
    mistake = invalid.errors(include_url=False)[0]
    form = _RULES.get(mistake["type"])
    context = mistake.get("ctx", {})
    bounds = {name: f"{n:g}" if isinstance(n, float) else n for name, n in context.items()}
    rule = form and form.format(**bounds)
    rule = rule or mistake["msg"].replace("Input should", "must", 1)
    return printable(f"{rule}, got {shlex.quote(str(mistake['input']))}")
