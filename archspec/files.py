"""The one door through which files and folders are written: whole or not at all, or told why not.

What is written stands beside its target first, and then replaces it.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from blocks.errors import SpecError, reason

_LONGEST_NAME = 240
"""Bytes of a name that leaves room for an ending; file systems take 255."""


class WriteError(SpecError, OSError):
    """Something cannot be written; `errno` and `strerror` say why, as they do of any OSError."""


def _refusal(path: Path, problem: str, number: int, strerror: str = "") -> WriteError:
    told = WriteError(problem, where=path)
    told.errno, told.strerror = number, strerror or problem
    return told


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise a WriteError of the path for what the system refuses inside."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        problem, around = f"cannot be written: {reason(error)}", _around(path)
        if around is not None and not around.is_dir():
            problem = f"{around} is no folder"
        raise _refusal(path, problem, error.errno or errno.EIO, reason(error)) from error


def _around(path: Path) -> Path | None:
    """Return the nearest thing above the path that is there; None where the system cannot say."""
    try:
        return next((above for above in path.absolute().parents if above.exists()), None)
    except OSError:
        return None


def _check_target(path: Path) -> None:
    """Refuse what no file can be put in place of: a folder, a device, a folder that is missing."""
    if path.is_dir():
        raise _refusal(path, "a folder stands where this file would be", errno.EISDIR)
    if path.exists() and not path.is_file():
        raise _refusal(path, "not a regular file", errno.EINVAL)
    around = _around(path)
    if around is not None and around.is_dir() and around != path.absolute().parent:
        raise _refusal(path, f"the folder {path.parent} does not exist", errno.ENOENT)


@contextmanager
def replacing(path: Path, *, ending: str = "") -> Iterator[Path]:
    """Yield a path beside the target to write to; it becomes the target when the block ends well.

    It has this ending, for writers that choose a format by it. A block that raises leaves the
    target as it was, and nothing beside it. The bytes are on the disk before they have the name,
    or a crash of the machine could leave the name without bytes.

    Raises:
        WriteError: it cannot be written.
    """
    partial = _beside(path, ending)
    with _told(path):
        _check_target(path)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(OSError):  # it would hide the error that is told
                partial.unlink(missing_ok=True)


def _beside(path: Path, ending: str) -> Path:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME // 4]
    return path.with_name(f"{name}.partial{ending}")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside the target to fill; it becomes the target when the block ends well.

    A folder that is there already is replaced as a whole. One that a block leaves unfinished goes.

    Raises:
        WriteError: it cannot be written.
    """
    make_folder(path.parent)
    with _told(path):
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
        try:
            draft = scratch / "new"
            draft.mkdir()
            yield draft
            if path.exists():  # moved aside, so that a failure in between loses neither version
                path.rename(scratch / "replaced")
            draft.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Yield a new folder that nobody else can read, in the system's place for such, until the end.

    Raises:
        WriteError: none can be made.
    """
    with _told(Path(tempfile.gettempdir())):
        made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    with made as name:
        yield Path(name)


def write_secret(path: Path, text: str) -> None:
    """Write a new file that nobody else can read, and the folder above it where that is missing.

    Raises:
        WriteError: it cannot be written, or is there already.
    """
    make_folder(path.parent)
    with _told(path):
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(made, "w", encoding="utf-8") as opened:
            opened.write(text)


def move_folder(path: Path, to: Path) -> Path:
    """Give the folder another name, and return that.

    Raises:
        WriteError: it cannot have it.
    """
    with _told(to):
        return path.rename(to)


def append_line(path: Path, line: str) -> None:
    """Add a line, on the disk when this returns; one that a kill cut off stays a line of its own.

    Raises:
        WriteError: it cannot be written.
    """
    with _told(path), path.open("ab+") as opened:
        if opened.tell():
            opened.seek(-1, os.SEEK_END)
            if opened.read() != b"\n":
                opened.write(b"\n")
        opened.write(f"{line}\n".encode())
        opened.flush()
        os.fsync(opened.fileno())


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """Open a log to add text to.

    Raises:
        WriteError: it cannot be written.
    """
    with _told(path), path.open("a", encoding="utf-8") as file:
        yield file


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        WriteError: they cannot be made, or a file stands in the place of one.
    """
    with _told(path):
        _check_is_folder(path)
        path.mkdir(parents=True, exist_ok=True)


def _check_is_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise _refusal(path, "a file stands where this folder would be", errno.EEXIST)


def check_writable(path: Path) -> None:
    """Refuse, before the work whose result it is to hold, a file that could not be written.

    Raises:
        WriteError: its folder is missing, nothing can be written there, or a folder stands there.
    """
    with _told(path):
        _check_target(path)
        _try_in(path.parent)


def check_folder(path: Path) -> None:
    """Refuse, before the work whose results it is to hold, a folder that could not be written to.

    Raises:
        WriteError: it could not be made, or nothing can be written there.
    """
    with _told(path):
        _check_is_folder(path)
        around = path if path.exists() else _around(path)
        if around is not None:
            _try_in(around)


def _try_in(folder: Path) -> None:
    """Write to the folder, and leave nothing: rights say less, of a user who has all of them."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\n")


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
