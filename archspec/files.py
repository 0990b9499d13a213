"""Whole files or none: what is written stands beside the target first, and then replaces it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blocks.errors import SpecError, reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside the target to write to; it becomes the target when the block ends well.

    A block that raises leaves the target as it was, and nothing beside it. The bytes are on the
    disk before they have the name, or a crash of the machine could leave the name without bytes.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return what a file that others wrote holds.

    Raises:
        SpecError: it cannot be read, is no JSON, or holds text that cannot be written.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise SpecError("cannot be read as JSON: nested too deeply", where=path) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be read as JSON: {reason(error)}", where=path) from None
    return found
