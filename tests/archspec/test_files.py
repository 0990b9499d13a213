"""Whole files or none."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from archspec.files import (
    WriteError,
    append_line,
    appending,
    check_folder,
    check_writable,
    make_folder,
    read_json,
    replacing,
    replacing_folder,
    write_text,
)
from blocks.errors import SpecError, reason


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


def test_a_partial_file_has_the_ending_that_its_writer_goes_by(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    with replacing(file, ending=".nii.gz") as partial:
        assert partial.parent == tmp_path and partial.name == "a.nii.gz.partial.nii.gz"
        partial.write_text("whole", encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    (tmp_path / "a.txt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text(encoding="utf-8") == "old"


def test_a_folder_becomes_the_target_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    for text in ("one", "two"):
        with replacing_folder(target) as draft:
            write_text(draft / f"{text}.txt", text)
            make_folder(draft / "deep" / "er")
        assert sorted(path.name for path in target.iterdir()) == ["deep", f"{text}.txt"]
    with pytest.raises(ZeroDivisionError), replacing_folder(target) as draft:
        write_text(draft / "three.txt", "")
        raise ZeroDivisionError
    assert (target / "two.txt").is_file()
    assert list((tmp_path / "a").iterdir()) == [target]


def test_a_line_is_added_behind_one_that_was_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    for line in ("one", "two"):
        append_line(file, line)
    file.write_bytes(file.read_bytes()[:-1])
    append_line(file, "three")
    assert file.read_bytes() == b"one\ntwo\nthree\n"
    with appending(file) as log:
        log.write("four")
    assert file.read_bytes().endswith(b"three\nfour")


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path: Path) -> None:
    file = tmp_path / ("\u00e4" * 127)
    check_writable(file)
    write_text(file, "a")
    assert list(tmp_path.iterdir()) == [file]


DOOR: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "a"),
    "line": lambda path: append_line(path, "a"),
    "check": check_writable,
    "folder": lambda path: make_folder(path / "a"),
    "check of a folder": lambda path: check_folder(path / "a"),
}


@pytest.mark.parametrize("way", DOOR)
@pytest.mark.parametrize("name", ["file/a", "file/b/c", "a" * 300, "a/" * 2500])
def test_what_cannot_be_written_is_told(tmp_path: Path, way: str, name: str) -> None:
    """As a SpecError for people, and as the OSError that it is for what waits for one."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(WriteError) as caught:
        DOOR[way](tmp_path / name)
    assert isinstance(caught.value, SpecError) and isinstance(caught.value, OSError)
    assert caught.value.errno and reason(caught.value) and str(caught.value).isprintable()
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_takes_the_place_of_a_device(tmp_path: Path) -> None:
    for way in ("text", "check"):
        with pytest.raises(WriteError, match="not a regular file"):
            DOOR[way](Path(os.devnull))
    for check in (make_folder, check_folder):
        with pytest.raises(WriteError, match="a file stands where this folder would be"):
            check(Path(os.devnull))


def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a")
    check_folder(tmp_path / "b" / "c")
    check_folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '"\\ud800"', '{"\\udfff": 1}', "", "{", "9" * 5000]
)
def test_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"a\.json: cannot be read as JSON: "):
        read_json(file)


def test_json_of_any_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_text(file, '{"a": ["\\ud83d\\ude00", "\u00e4", "\\\\ud800", NaN, 1e400]}')
    assert read_json(file)["a"][:3] == ["\U0001f600", "\u00e4", "\\ud800"]
