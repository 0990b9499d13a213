"""What a search notes about itself when it starts and when it goes on."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archspec.spec.yaml_file import dump
from search.study.session import SESSIONS, data_split, note_session, read_sessions
from search.trials.host import TrainingHost


def test_every_start_is_noted(
    tmp_path: Path,
    fakes: SimpleNamespace,
    space_tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(space_tree), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/archspec", "search", "a b.yaml"])
    fakes.run_fake(space, out, 2, fakes.FakePool())
    monkeypatch.setattr("sys.argv", ["/somewhere/archspec/__main__.py", "search", "--resume"])
    monkeypatch.setenv("ARCHSPEC_SCAN", "kscan")
    fakes.run_fake(space, out, 3, fakes.FakePool(), devices=("cpu", "cpu"), threads=3)
    first, second = read_sessions(out)
    assert first["command"] == "archspec search 'a b.yaml'"
    assert second["command"] == "python -m archspec search --resume"
    assert (first["trials"], second["trials"]) == (2, 3)
    assert len(second["devices"]) == 2 and second["threads"] == 3
    assert first["scan_backend"].startswith("the first that works of numba, ")
    assert second["scan_backend"] == "kscan (ARCHSPEC_SCAN)"
    assert first["versions"].keys() >= {"python", "torch", "optuna", "nnunetv2"}
    assert first["input"] == {"in_channels": 1, "num_classes": 2, "patch_size": [16, 16, 16]}


def test_what_a_kill_cut_off_is_left_out(tmp_path: Path, fakes: SimpleNamespace) -> None:
    assert read_sessions(tmp_path) == []
    dataset = fakes.fake_dataset(tmp_path)
    note_session(tmp_path, dataset, TrainingHost())
    with (tmp_path / SESSIONS).open("a", encoding="utf-8") as file:
        file.write('{"date": "2026')
    assert [session["threads"] for session in read_sessions(tmp_path)] == [1]
    note_session(tmp_path, dataset, TrainingHost(threads=2))
    assert [session["threads"] for session in read_sessions(tmp_path)] == [1, 2]


@pytest.mark.parametrize("cases", [5, 13, 24])
def test_split_without_a_file_is_that_of_nnunet(
    tmp_path: Path, fakes: SimpleNamespace, cases: int
) -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    dataset = fakes.fake_dataset(tmp_path)
    for case in range(cases):
        (tmp_path / "data" / f"case_{case}.pkl").touch()
    names = sorted(f"case_{case}" for case in range(cases))
    for fold, split in enumerate(generate_crossval_split(names, seed=12345, n_splits=5)):
        found = data_split(dataset, fold)
        assert found == {"training": list(split["train"]), "validation": list(split["val"])}
    splits = [{"train": ["a"], "val": ["b", "c"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    assert data_split(dataset, 0) == {"training": ["a"], "validation": ["b", "c"]}
