"""Mistakes of the user as data, and the one place where they become text."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

MAX_LINES = 10
"""Lines that one error has at most."""
_MAX_PART = 800
"""Letters that one part of a line has at most; what is longer is cut in its middle."""
_MAX_DIGITS = 20
_LONG_NUMBER = re.compile(rf"(?<![\w./-])\d{{{_MAX_DIGITS + 1},}}(?![/-])")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the user wrote what is wrong.

    A `file` (or folder) has a line and a column where they are known, counted from 1. An `override`
    has its text as its name. An `argument` of a function has its value, as an `option` of the
    command line has, which stands for one.
    """

    name: str
    line: int | None = None
    column: int | None = None
    kind: Literal["file", "override", "argument", "option"] = "file"
    value: object = None

    def __str__(self) -> str:
        if self.kind == "override":
            return f"-s {self.name}"
        if self.kind == "argument":
            return f"{self.name}={quoted(self.value)}"
        if self.kind == "option":
            return f"{self.name} {self.value}"
        numbers = [number for number in (self.line, self.column) if number is not None]
        return ":".join([self.name, *map(str, numbers)])


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. All texts are parts of one line.

    `field` is the dotted path of the spec's field that is wrong, `allowed` lists what it may be,
    and `suggestion` is what to do. `other` is the field that it does not go with, where that one
    may as well be the one to change. Names in backquotes are arguments of functions, in whose place
    the command line names its options.
    """

    problem: str
    where: Place | None = None
    field: str = ""
    allowed: str = ""
    suggestion: str = ""
    other: str = ""


class SpecError(ValueError):
    """Report mistakes of the user; `problems` has each as data, and the text a line for each."""

    exit_code: ClassVar[int] = 2

    def __init__(
        self,
        problem: str | Sequence[Problem],
        *,
        where: Place | Path | str | None = None,
        field: str = "",
        allowed: str = "",
        suggestion: str = "",
        other: str = "",
    ) -> None:
        if isinstance(problem, str):
            place = where if isinstance(where, Place | None) else Place(str(where))
            problem = [Problem(problem, place, field, allowed, suggestion, other)]
        self.problems = tuple(problem)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return render(self.problems)

    @property
    def line(self) -> str:
        """Return the first problem in one line, and how many others there are."""
        others = len(self.problems) - 1
        more = f" (and {others} more mistake{'s' * (others > 1)})" if others else ""
        return f"{render(self.problems[:1])}{more}"

    def below(self, path: str) -> Self:
        """Return the error with the path, which may be empty, put before its fields."""
        return type(self)(
            [replace(one, field=".".join(filter(None, (path, one.field)))) for one in self.problems]
        )

    def at(self, where: Place | Path | str) -> Self:
        """Return the error with this place for the problems that have none."""
        place = where if isinstance(where, Place) else Place(str(where))
        return type(self)([replace(one, where=one.where or place) for one in self.problems])


class AbsentError(SpecError):
    """Report a cluster or a server that is not there, though nothing that was asked is wrong."""

    exit_code: ClassVar[int] = 1


def argument(name: str, value: object) -> Place:
    """Return the place of what a caller gave."""
    return Place(name, kind="argument", value=value)


def render(problems: Sequence[Problem]) -> str:
    """Return a line for each problem, `MAX_LINES` of them: where, field, what, and what to do."""
    lines = [_line(one) for one in problems]
    if len(lines) > MAX_LINES:
        kept = MAX_LINES - 1
        lines = [*lines[:kept], f"and {len(lines) - kept} more mistakes"]
    return "\n".join(lines)


def _line(one: Problem) -> str:
    parts = (one.problem, one.allowed and f"allowed: {one.allowed}", one.suggestion)
    text = "; ".join(printable(part) for part in parts if part)
    if one.field:
        text = f"{printable(one.field)}: {text}"
    if one.where is None:
        return text
    at = one.where
    apart = at.line is not None or at.kind == "override" or (one.field and at.kind != "file")
    return f"{printable(str(at))}{'  ' if apart else ': '}{text}"


def printable(text: str) -> str:
    """Return what a user, a file or a library wrote as part of one line that can be printed.

    Line breaks and control characters are escaped, numbers and texts of any length are shortened.
    """
    if not text.isprintable():
        text = "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
        )
    text = _LONG_NUMBER.sub(lambda found: _shortened(found[0][:6], len(found[0])), text)
    if len(text) > _MAX_PART:
        text = f"{text[: _MAX_PART // 2]}...{text[-_MAX_PART // 4 :]}"
    return text


def quoted(value: object) -> str:
    """Return what `repr` does, of integers as well for which it has too many digits."""
    try:
        return repr(value)
    except ValueError:
        pass
    if isinstance(value, int):
        return digits(value)
    parts = map(quoted, value) if isinstance(value, tuple | list) else ()
    return f"({', '.join(parts)})" if parts else f"a {type(value).__name__}"


def digits(number: int) -> str:
    """Return the number as text, shortened where it has more than 20 digits."""
    size = abs(number)
    if size < 10**_MAX_DIGITS:
        return str(number)
    count = math.floor(math.log10(size)) + 1  # `str` refuses thousands of digits
    return "-" * (number < 0) + _shortened(str(size // 10 ** (count - 6)), count)


def _shortened(first: str, count: int) -> str:
    return f"{first}... ({count} digits)"


def reason(error: BaseException) -> str:
    """Return the first line of what an error of another library says, for a message of ours."""
    system = error.strerror if isinstance(error, OSError) else None
    lines = (system or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
