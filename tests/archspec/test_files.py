"""Whole files or none."""

from pathlib import Path

import pytest

from archspec.files import replacing, write_text


def test_text_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for text in ("one\n", "zwei \u00e4\n"):
        write_text(file, text)
        assert file.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(ZeroDivisionError), replacing(file) as partial:
        partial.write_text("half", encoding="utf-8")
        assert file.read_text(encoding="utf-8") == "old"
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text(encoding="utf-8") == "old"


def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    (tmp_path / "a.txt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text(encoding="utf-8") == "old"
