"""A run folder that something happened to: every verb names the file, and overwrites nothing.

The folder is that of an earlier release, whose trainings have all ended.
"""

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.study.damage
import search.study.run
from blocks.base import SpecError
from search.study.storage import open_run

RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c"
CASES = [f"case_{number:04d}" for number in range(1, 11)]
FILES = (
    "study.db",
    "run.json",
    "sessions.jsonl",
    "confirmed.json",
    "confirm/trainings.jsonl",
    "space.yaml",
    "trials/0001/spec.yaml",
    "trials/0001/metrics.jsonl",
)
READ = {
    "study.db": ("report", "json", "best", "confirm", "control", "search", "status"),
    "run.json": ("report", "json", "best", "confirm", "control", "search", "status"),
    "sessions.jsonl": ("report", "json", "status"),
    "confirmed.json": ("report", "json"),
    "confirm/trainings.jsonl": ("confirm",),
    "trials/0001/spec.yaml": ("best", "confirm"),
}
"""Which verbs cannot do without a file; trial 1 is the best one."""
VERBS = READ["study.db"]

Call = Callable[[str], tuple[int, str, str]]


def _cut(content: bytes, draws: random.Random) -> bytes:
    return content[: draws.randrange(1, len(content) - 1)]


def _overwrite(content: bytes, draws: random.Random) -> bytes:
    length = min(draws.choice((1, 8, 64, 512)), len(content) // 2)
    place = draws.randrange(len(content) - length)
    return content[:place] + draws.randbytes(length) + content[place + length :]


def _blank(content: bytes, draws: random.Random) -> bytes:
    length = min(4096, len(content) // 2)
    place = draws.randrange(len(content) - length)
    return content[:place] + bytes(length) + content[place + length :]


def _noise(content: bytes, draws: random.Random) -> bytes:
    return draws.randbytes(len(content))


KINDS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "cut": _cut,
    "overwritten": _overwrite,
    "blanked": _blank,
    "noise": _noise,
    "empty": lambda content, draws: b"",
    "gone": lambda content, draws: None,
}
SEEN = ("noise", "empty", "gone")
"""Kinds that every verb sees which reads the file."""
KEPT = 'the run\'s own settings stay, since this command gives none: weights "last"\n'
"""What a search that goes on with this run says first: its release averaged no weights."""
ABSENT = ("sessions.jsonl", "confirmed.json", "confirm/trainings.jsonl")
"""Files that may be missing, and tables that may be empty: they are written later or again."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RELEASE / "finished", tmp_path / "run"))


@pytest.fixture
def call(
    tmp_path: Path,
    run: Path,
    fakes: SimpleNamespace,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    hollow_case: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., tuple[int, str, str]],
) -> Call:
    """Return a function that asks a verb about the run."""
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(RELEASE / "preprocessed", preprocessed)
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    data = preprocessed / "Dataset902_Small" / "nnUNetPlans_3d_fullres"
    data.mkdir()
    for case in CASES:
        hollow_case(data / case)
    whole = shutil.copytree(run, tmp_path / "whole")
    search_options = ("--data", 902, "--trials", 6, "--out", run, "--confirm-seeds", 0)
    lines: dict[str, tuple[object, ...]] = {
        "report": ("report", run),
        "json": ("report", run, "--json"),
        "best": ("best", run, "-o", tmp_path / "best.yaml", "--force"),
        "confirm": ("confirm", run, "--seeds", 2, "--device", "cpu"),
        "control": ("control", run, whole),
        "status": ("status", run),
        "search": ("search", RELEASE / "space.yaml", *search_options, "--device", "cpu"),
    }

    def ask(verb: str) -> tuple[int, str, str]:
        pool = fakes.FakePool()
        monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: pool)
        in_place_of_workers(scoring_pool(lambda *_: 0.5))
        return cli(*lines[verb], *(("--resume",) if verb == "search" else ()))

    return ask


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def harm(run: Path, name: str, kind: str, seed: int) -> None:
    content = (run / name).read_bytes()
    harmed = KINDS[kind](content, random.Random(f"{name} {kind} {seed}"))
    if harmed is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(harmed)


def check(run: Path, call: Call, name: str, kind: str, seed: int, verb: str) -> None:
    """Harm a file, ask a verb, and see that it did well."""
    harm(run, name, kind, seed)
    before = contents(run)
    code, out, err = call(verb)
    assert "Traceback" not in err
    must = kind in SEEN and verb in READ.get(name, ())
    if name in ABSENT and kind in ("empty", "gone") and (name, kind) != _EMPTY_RESULT:
        must = False
    if code == 2 and verb == "control" and "no control" in err:
        code = 0  # it has read both
    if must:
        assert code == 2, (out, err)
    if code == 2:
        assert err.count("\n") == 1 and err.startswith("archspec: "), err
        assert Path(name).name in err or str(run) in err, err
        after = contents(run)
        assert {path: after.get(path) for path in before} == before
    else:
        assert code in (0, 1), err


_EMPTY_RESULT = ("confirmed.json", "empty")


def sampled(number: int) -> list[Any]:
    every = [(name, kind, verb) for name in FILES for kind in KINDS for verb in VERBS]
    return random.Random(0).sample(every, number)


@pytest.mark.parametrize(("name", "kind", "verb"), sampled(20))
def test_a_sample_of_damages(run: Path, call: Call, name: str, kind: str, verb: str) -> None:
    check(run, call, name, kind, 0, verb)


@pytest.mark.long
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", FILES)
def test_every_damage(run: Path, call: Call, name: str, verb: str, tmp_path: Path) -> None:
    kept = shutil.copytree(run, tmp_path / "kept")
    for kind in KINDS:
        for seed in range(12 if kind in ("cut", "overwritten", "blanked") else 1):
            shutil.rmtree(run)
            shutil.copytree(kept, run)
            check(run, call, name, kind, seed, verb)


def test_an_empty_database_of_a_run_with_trials_is_not_taken_for_a_fresh_one(
    run: Path, call: Call
) -> None:
    (run / "study.db").write_bytes(b"")
    before = contents(run)
    code, out, err = call("search")
    assert (code, out) == (2, KEPT)
    assert err == (
        f"archspec: {run / 'study.db'}: holds no search any more; put back a copy of it, or search "
        f"anew; the specs and metrics of 5 trials are in {run / 'trials'}\n"
    )
    assert contents(run) == before


@pytest.mark.parametrize("name", ["space.yaml", "sessions.jsonl"])
def test_a_folder_in_place_of_a_file_is_told_before_others_are_written(
    run: Path, call: Call, name: str
) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    before = contents(run)
    told = f"archspec: {run / name}: a folder stands where this file would be\n"
    assert call("search") == (2, KEPT, told)
    assert contents(run) == before


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold the database as another process would; SQLite's locks are those of the system."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize("verb", ["report", "search"])
def test_a_database_that_another_process_holds_is_told(
    run: Path, call: Call, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search.study.damage._PATIENCE < 10
    monkeypatch.setattr(search.study.damage, "_PATIENCE", 0.1)
    with held(run / "study.db"):
        code, out, err = call(verb)
    assert (code, out) == (2, KEPT if verb == "search" else "")
    assert err.startswith(f"archspec: {run / 'study.db'}: another process holds it; ")
    assert err.count("\n") == 1
    assert call("report")[0] == 0


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("trial_user_attributes", "value_json", '"5'),
        ("trial_user_attributes", "value_json", '{"a": 1}'),
        ("trials", "state", "DONE"),
        ("trial_values", "value_type", "X"),
        ("trial_params", "distribution_json", "{}"),
    ],
)
def test_values_that_no_search_writes_are_damage(
    run: Path, table: str, column: str, value: str
) -> None:
    """SQLite finds nothing wrong with them."""
    with contextlib.closing(sqlite3.connect(run / "study.db")) as database:
        database.execute(f"UPDATE {table} SET {column} = ?", (value,))
        database.commit()
    with pytest.raises(SpecError, match=r"study\.db: damaged") as told:
        open_run(run)
    assert "\n" not in str(told.value)


def test_what_the_database_finds_is_told_without_its_heading(run: Path) -> None:
    content = (run / "study.db").read_bytes()
    (run / "study.db").write_bytes(content[:12288] + bytes(24576) + content[36864:])
    with pytest.raises(SpecError, match=r"study\.db: damaged: \w") as told:
        open_run(run)
    assert "***" not in str(told.value)
