"""What a case is, and what it may end in: taken, or refused in lines that can be printed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blocks.errors import MAX_LINES, SpecError


@dataclass(frozen=True)
class Case:
    """Something to ask of the product. `ask` is timed and may refuse; `then` gets its result.

    `then` is what no user would wait for: checks of a result that was given.
    """

    ask: Callable[[], Any]
    then: Callable[[Any], None] = lambda result: None


class WrongError(AssertionError):
    """The product ended as it may not, though not in a traceback."""


def check_refusal(error: SpecError) -> None:
    """Raise where an error is not a few lines that can be printed, with something to say."""
    text = str(error)
    lines = text.splitlines()
    if not lines or len(lines) > MAX_LINES or not all(line.isprintable() for line in lines):
        raise WrongError(f"not {MAX_LINES} lines that can be printed: {text!r}")
    if any(not line.strip() or len(line) > 5000 for line in lines):
        raise WrongError(f"an empty line, or one without an end: {text[:500]!r}")
