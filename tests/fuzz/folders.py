"""Run folders of an earlier release that something happened to, and what verbs say of them."""

import contextlib
import io
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import search.study.run
from archspec.cli.main import main
from tests.fuzz.cases import Case, WrongError
from tests.fuzz.mutate import damage
from tests.search.fake_search import FakePool

RELEASE = Path(__file__).parents[1] / "fixtures/releases/047295c"
RUNS = ("finished", "finished", "interrupted")
_VARIABLE = "nnUNet_preprocessed"
CASES = [f"case_{number:04d}" for number in range(1, 11)]


def make(draws: random.Random, folder: Path) -> Case:
    """Copy a run, damage one file or a few of it, and ask one verb about it."""
    run = Path(
        shutil.copytree(RELEASE / draws.choice(RUNS), folder / draws.choice(("run", "a b'#")))
    )
    _write_data(folder)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for file in draws.sample(files, draws.choice((1, 1, 1, 2, 3))):
        left = damage(file.read_bytes(), draws)
        if left is None and draws.random() < 0.5:
            file.unlink()
            file.mkdir()
        elif left is None:
            file.unlink()
        else:
            file.write_bytes(left)
    words = draws.choice(_VERBS)(run, folder)
    return Case(lambda: _asked(words, run, folder))


def warm(folder: Path) -> None:
    """Ask every verb about a whole run: most of the first one's time are its imports."""
    run = Path(shutil.copytree(RELEASE / "finished", folder / "run"))
    _write_data(folder)
    for verb in _VERBS:
        _asked(verb(run, folder), run, folder)


def _write_data(folder: Path) -> None:
    """Write the dataset of the runs, with cases that look whole and hold nothing."""
    shutil.copytree(RELEASE / "preprocessed", folder / "preprocessed")
    data = folder / "preprocessed/Dataset902_Small/nnUNetPlans_3d_fullres"
    data.mkdir()
    for case in CASES:
        np.savez(data / f"{case}.npz", data=0, seg=0)
        (data / f"{case}.pkl").write_bytes(pickle.dumps({}))


def _search(run: Path, folder: Path) -> list[str]:
    options = ["--data", "902", "--trials", "6", "--device", "cpu", "--confirm-seeds", "0"]
    return ["search", str(RELEASE / "space.yaml"), *options, "--out", str(run), "--resume"]


_VERBS: tuple[Callable[[Path, Path], list[str]], ...] = (
    lambda run, folder: ["report", str(run)],
    lambda run, folder: ["report", str(run), "--json"],
    lambda run, folder: ["best", str(run), "-o", str(folder / "best.yaml")],
    lambda run, folder: ["validate", str(run / "space.yaml")],
    lambda run, folder: ["control", str(run), str(RELEASE / "finished")],
    _search,
)


def _asked(words: list[str], run: Path, folder: Path) -> str:
    """Ask the verb here; raise where it ends in anything but its result, or one line."""
    os.environ[_VARIABLE] = str(folder / "preprocessed")
    search.study.run.WorkerPool = lambda settings, jobs: FakePool()  # type: ignore[assignment, misc]
    before = _contents(run)
    sys.argv = ["archspec", *words]
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    told = err.getvalue()
    if code not in (0, 1, 2, None):
        raise WrongError(f"exit code {code}: {told[-500:]}")
    if code != 2:
        return "taken"
    lines = told.splitlines()
    if not lines or not all(line.isprintable() for line in lines) or "Traceback" in told:
        raise WrongError(f"not lines that can be printed: {told[-500:]!r}")
    if any(not line.startswith("archspec: ") for line in lines) or len(lines) > 10:
        raise WrongError(f"not a refusal: {told[-500:]!r}")
    after = _contents(run)
    changed = [name for name in before if after.get(name) != before[name]]
    if changed:
        raise WrongError(f"refused, and overwrote {', '.join(changed)}: {told[-300:]}")
    return "refused"


def _contents(run: Path) -> dict[str, bytes]:
    """Return all files but locks."""
    files = (path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}
