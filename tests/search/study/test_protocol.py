"""protocol.lock: written before anything is trained, and nothing else than that is taken for it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.study.protocol import LOCK, Terms, read_protocol
from search.study.record import RECORD, RunRecord, read_run
from search.study.session import SESSIONS, read_sessions

Run = Callable[..., Path]
TERMS = Terms(margin=0.005, seeds=2)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Run:
    """Return a function that makes or goes on with a run of the folder, with a test part or not."""
    stage = {"width": {"choice": [2, 3, 4]}, "mixer": {"kind": "conv"}}
    tree = {
        "name": "tiny",
        "patch_size": [16, 16, 16],
        "encoder": {"stages": [stage]},
        "decoder": {"kind": "sum"},
    }

    def run(folder: Path, trials: int = 1, share: float = 0.3, **options: Any) -> Path:
        space = folder / "space.yaml"
        settings = {"steps": 3, "rungs": 1, "stopper": "none", "test_share": share}
        space.write_text(dump({**tree, "search": settings}), encoding="utf-8")
        fakes.fake_dataset(folder / "preprocessed", cases=20)
        pool = options.pop("pool", fakes.FakePool())
        fakes.run_fake(space, folder / "run", trials, pool, **options)
        return folder / "run"

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, searched: Run) -> Path:
    return searched(tmp_path_factory.mktemp("made"), terms=TERMS)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of a run of one trial, in the folder of the test."""
    shutil.copytree(made.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / made.name


def record_of(run: Path) -> RunRecord:
    found = read_run(run)
    assert found is not None
    return found


def test_it_holds_margin_metric_split_and_seeds(made: Path) -> None:
    content = json.loads((made / LOCK).read_text(encoding="utf-8"))
    record = record_of(made)
    assert record.test_cases
    assert content == {
        **{"rule": 1, "margin": 0.005, "seeds": 2, "mixer": None, "metric": "Dice"},
        **{"cost": "flops", "steps": 3, "dataset": "Dataset901_X", "configuration": "3d_fullres"},
        **{"fold": 0, "seed": 0, "test_cases": list(record.test_cases)},
    }
    found = read_protocol(made, record)
    assert found is not None and found.terms == TERMS
    assert [one["protocol"] for one in read_sessions(made)] == [found.digest]


def test_it_stands_before_the_first_training(
    tmp_path: Path, searched: Run, fakes: SimpleNamespace
) -> None:
    class Pool(fakes.FakePool):  # type: ignore[misc, name-defined]
        def submit(self, task: Any) -> None:
            assert (tmp_path / "run" / LOCK).is_file()
            assert read_sessions(tmp_path / "run")[0]["protocol"]
            super().submit(task)

    pool = Pool()
    searched(tmp_path, terms=TERMS, pool=pool)
    assert pool.tasks


def test_a_run_without_test_cases_or_without_terms_has_none(tmp_path: Path, searched: Run) -> None:
    for name, options in (("a", {"share": 0, "terms": TERMS}), ("b", {"terms": None})):
        (tmp_path / name).mkdir()
        run = searched(tmp_path / name, **options)
        assert not (run / LOCK).exists() and "protocol" not in read_sessions(run)[0]
        assert read_protocol(run, record_of(run)) is None
    # one that went on without is not given one later
    searched(tmp_path / "b", trials=2, terms=TERMS)
    assert not (tmp_path / "b" / "run" / LOCK).exists()


def test_a_run_goes_on_under_it_and_on_no_other_terms(run: Path, searched: Run) -> None:
    before = (run / LOCK).read_bytes()
    searched(run.parent, trials=2)
    searched(run.parent, trials=3, terms=TERMS)
    assert (run / LOCK).read_bytes() == before
    assert len({one["protocol"] for one in read_sessions(run)}) == 1
    with pytest.raises(SpecError, match=r"its protocol says margin 0\.005, seeds 2, which other"):
        searched(run.parent, trials=4, terms=Terms(margin=0.01, seeds=3))


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}, indent=2) + "\n", encoding="utf-8")


def changed(run: Path) -> None:
    change(run / LOCK, margin=0.02)


def reformatted(run: Path) -> None:
    (run / LOCK).write_bytes((run / LOCK).read_bytes() + b"\n")


def gone(run: Path) -> None:
    (run / LOCK).unlink()


def damaged(run: Path) -> None:
    (run / LOCK).write_text("{", encoding="utf-8")


def without_margin(run: Path) -> None:
    change(run / LOCK, margin=None)


def of_another_rule(run: Path) -> None:
    change(run / LOCK, rule=2)


def later(run: Path) -> None:
    (run / SESSIONS).unlink()


def of_another_split(run: Path) -> None:
    change(run / RECORD, test_cases=["case_1"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (changed, "but sessions.jsonl notes"),
        (reformatted, "but sessions.jsonl notes"),
        (gone, "is gone"),
        (damaged, "damaged"),
        (without_margin, "damaged"),
        (of_another_rule, "is of rule 2, which this release does not know"),
        (later, "but sessions.jsonl notes none from before the first training"),
        (of_another_split, "does not go with run.json"),
    ],
)
def test_what_is_not_what_the_search_wrote_is_refused_in_one_line(
    run: Path, searched: Run, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(run)
    with pytest.raises(SpecError, match=words) as caught:
        read_protocol(run, record_of(run))
    line = str(caught.value)
    assert line.startswith(str(run / LOCK)) and "\n" not in line
