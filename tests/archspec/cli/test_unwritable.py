"""What cannot be written: one line, exit code 2, before the work, and nothing half-written left."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec import files

Cli = Callable[..., tuple[int, str, str]]
Put = Callable[[Path], Path]
RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a preprocessed dataset, in a folder of its own."""
    shutil.copytree(RELEASE / "preprocessed", tmp_path / "preprocessed")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return next((tmp_path / "preprocessed").iterdir()).name


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(RELEASE / "finished", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def refused(tmp_path: Path, cli: Cli) -> Callable[..., str]:
    """Return a function that runs a verb that is to refuse: one line, and nothing written."""

    def call(*line: object) -> str:
        before = set(tmp_path.rglob("*"))
        code, out, err = cli(*line)
        assert (code, out, err.count("\n")) == (2, "", 1), (out, err)
        assert err.startswith("archspec: ") and err[:-1].isprintable() and len(err) < 1500
        assert set(tmp_path.rglob("*")) == before
        return err

    return call


def no_folder(root: Path) -> Path:
    return root / "missing" / "file.yaml"


def below_a_file(root: Path) -> Path:
    return RELEASE / "net.yaml" / "file.yaml"


def a_folder(root: Path) -> Path:
    return RELEASE / "finished"


def a_long_name(root: Path) -> Path:
    return root / ("a" * 300)


def a_long_path(root: Path) -> Path:
    return root / "/".join(["a" * 100] * 50)


def no_rights(root: Path) -> Path:
    """Return a file where not even a user with all rights may write."""
    return Path("/proc/archspec.yaml")


def a_device(root: Path) -> Path:
    return Path(os.devnull)


FILES = [no_folder, below_a_file, a_folder, a_long_name, a_long_path, no_rights, a_device]
FOLDERS = [
    a_long_path,
    no_rights,
    *(pytest.param(one, marks=pytest.mark.long) for one in (below_a_file, a_long_name)),
]
WHY = {
    "no_folder": "does not exist",
    "below_a_file": "net.yaml is no folder",
    "a_folder": "a folder stands where this file would be",
    "a_long_name": "File name too long",
    "a_long_path": "File name too long",
    "no_rights": "cannot be written: ",
    "a_device": "not a regular file",
}


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the work behind each verb fail the test."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    for name in (
        "search.report.write.best_trial",
        "archspec.scoring.evaluate.evaluate",
        "archspec.nnunet.from_plans.tree_of_dataset",
        "archspec.network.convert.read_checkpoint",
        "archspec.drawing.draw.cost_plan",
        "archspec.phantom.dataset._write_cases",
        "search.study.run.check",
        "search.retrain.retrain._Runner",
    ):
        monkeypatch.setattr(name, work)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("place", FILES)
def test_files_are_refused_before_the_work(
    tmp_path: Path, dataset: str, refused: Callable[..., str], place: Put
) -> None:
    out = place(tmp_path)
    for line in (
        ("best", RELEASE / "finished", "--force", "-o", out),
        ("evaluate", tmp_path, tmp_path, "--force", "--csv", out),
        ("from-plans", dataset, "--force", "-o", out),
        ("convert", RELEASE / "net.yaml", "--as", "segformer3d", "--force", "-o", out),
        ("draw", "small-unet", "--force", "-o", out),
        ("describe", "small-unet", "--force", "--draw", out),
    ):
        assert WHY[place.__name__] in refused(*line), line


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("place", FOLDERS)
def test_folders_are_refused_before_the_work(
    tmp_path: Path, dataset: str, refused: Callable[..., str], place: Put
) -> None:
    out = place(tmp_path)
    for line in (
        ("search", RELEASE / "space.yaml", "--data", dataset, "--trials", 1, "--out", out),
        ("demo", "--out", out),
        ("ablate", RELEASE / "net.yaml", "--data", dataset, "--out", out),
        ("phantom", out.with_name("Dataset901_X") if place is not a_long_name else out),
    ):
        error = refused(*line)
        phantom = ("the folder's name must be", "a file stands where this folder would be")
        why = phantom if line[0] == "phantom" else ()
        assert any(text in error for text in (WHY[place.__name__], *why)), line


@pytest.mark.usefixtures("no_work")
def test_a_file_in_place_of_a_folder(
    tmp_path: Path, dataset: str, refused: Callable[..., str]
) -> None:
    file = tmp_path / "Dataset901_X"
    file.write_text("mine", encoding="utf-8")
    for line in (
        ("search", RELEASE / "space.yaml", "--data", dataset, "--trials", 1, "--out", file),
        ("demo", "--force", "--out", file),
        ("ablate", RELEASE / "net.yaml", "--data", dataset, "--out", file),
        ("phantom", file, "--force"),
    ):
        refused(*line)
    assert file.read_text(encoding="utf-8") == "mine"


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the system refuse to write what was written to the disk."""

    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        *(pytest.param(one, marks=pytest.mark.long) for one in (errno.EDQUOT, errno.EIO)),
    ],
)
def test_a_disk_that_fails_while_it_is_written(
    tmp_path: Path,
    run: Path,
    dataset: str,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    failing(monkeypatch, number)
    for line in (
        ("best", run, "-o", tmp_path / "best.yaml"),
        ("report", run),
        ("from-plans", dataset, "-o", tmp_path / "plans.yaml"),
        ("draw", "small-unet", "-o", tmp_path / "net.svg"),
        ("export", RELEASE / "net.yaml", "--dataset", dataset, "--plans-name", "other"),
        ("phantom", tmp_path / "Dataset950_X", "--cases", 5, "--test-cases", 0),
    ):
        assert f"cannot be written: {os.strerror(number)}" in refused(*line), line


@pytest.mark.usefixtures("dataset")
def test_a_report_on_a_folder_where_nothing_can_be_written(
    run: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is mounted to be read."""

    def temporary(*_: object, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(options["dir"]))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", temporary)
    for verb in ("report", "confirm"):
        assert f"cannot be written: {os.strerror(errno.EROFS)}" in refused(verb, run)


@pytest.mark.parametrize(
    "line",
    [
        ("validate", "{}.yaml"),
        ("describe", "./{}"),
        ("draw", "{}.yaml"),
        ("report", "{}"),
        ("best", "{}", "-o", "best.yaml"),
        ("confirm", "{}"),
        ("control", "{}"),
        ("evaluate", "{}", "{}"),
        ("convert", "{}.pt", "--as", "segformer3d", "-o", "a.safetensors"),
        ("export", "unet", "--dataset", "{}"),
        ("from-plans", "{}"),
        ("overfit", "unet", "--data", "{}"),
        ("search", "{}.yaml", "--data", "1", "--trials", "1", "--out", "x"),
    ],
    ids=lambda line: line[0],
)
@pytest.mark.parametrize("path", ["a" * 5000, "/".join(["a" * 100] * 50)], ids=range(2))
def test_paths_that_no_system_takes(
    tmp_path: Path,
    dataset: str,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
    line: tuple[str, ...],
    path: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*(word.format(path) for word in line))
