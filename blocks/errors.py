"""Mistakes of the user as data, and the one place where they become text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

MAX_LINES = 10
"""Lines that one error has at most."""


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
            return f"{self.name}={self.value!r}"
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
    text = "; ".join(
        filter(
            None,
            (one.problem, one.allowed and f"allowed: {one.allowed}", one.suggestion),
        )
    )
    if one.field:
        text = f"{one.field}: {text}"
    if one.where is None:
        return text
    at = one.where
    apart = at.line is not None or at.kind == "override" or (one.field and at.kind != "file")
    return f"{at}{'  ' if apart else ': '}{text}"


def reason(error: BaseException) -> str:
    """Return the first line of what an error of another library says, for a message of ours."""
    system = error.strerror if isinstance(error, OSError) else None
    lines = (system or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
