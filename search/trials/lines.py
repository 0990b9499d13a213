"""Files of JSON lines that only grow: a kill may cut off a line, and nothing else of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archspec import files
from blocks.errors import Place, SpecError

_LONGEST_WORD = 8
"""Characters before the end of a cut-off line at which it may stop being JSON: `fals`, `\\u00e`."""


def append_line(file: Path, content: Mapping[str, Any]) -> None:
    """Add a line, as `archspec.files.append_line` does.

    Raises:
        OSError: it cannot be written.
    """
    files.append_line(file, json.dumps(content))


def read_lines(file: Path, *, suggestion: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the lines by number, without those that a kill cut off; none where there is no file.

    Raises:
        SpecError: a line is damaged; `suggestion` says what can still be done.
    """
    if not file.is_file():
        return []
    found = []
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            if _is_cut_off(error):
                continue
            content = None
        if not isinstance(content, dict):
            raise SpecError("damaged", where=Place(str(file), number), suggestion=suggestion)
        found.append((number, content))
    return found


def _is_cut_off(error: Exception) -> bool:
    if not isinstance(error, json.JSONDecodeError):
        return False
    at_end = error.pos >= len(error.doc) - _LONGEST_WORD
    return at_end or error.msg.startswith("Unterminated string")
