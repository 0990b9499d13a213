"""Plain text: tables, durations, and commands that can be pasted back."""

import re
import shlex
from collections.abc import Sequence


def command_line(*words: object) -> str:
    """Return the command as a shell takes it, whatever its paths hold, without passwords."""
    return shlex.join(without_password(str(word)) for word in words)


_PASSWORD = re.compile(r"(://[^/?#@\s:]*):[^@\s]*(?=@)")
_QUERY = re.compile(r"(?<=[?&])(?:ssl)?password=[^&\s]*&?")


def without_password(text: str) -> str:
    """Return the text with the addresses of servers in it without their passwords."""
    return _QUERY.sub("", _PASSWORD.sub(r"\1", text))


def assignment(name: str, value: object) -> str:
    """Return the line that sets a variable of the environment."""
    return f"export {name}={shlex.quote(str(value))}"


def duration(seconds: float) -> str:
    """Return it in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return one line per row, columns aligned: the first `left` to the left, others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
