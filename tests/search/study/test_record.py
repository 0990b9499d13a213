"""run.json as a record: read and written alike, whatever release wrote it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archspec.spec.yaml_file import dump
from search.study.record import RunRecord, read_run

TESTS = Path(__file__).parents[2]
STORED = [*TESTS.glob("fixtures/releases/*/*/run.json"), *TESTS.glob("search/study/*/*/run.json")]
NEW = {"name": "unknown", "watts": [3, {"a": None}]}
"""What a later release may write beside."""


@pytest.mark.parametrize("file", STORED, ids=lambda file: str(file.parent.name))
def test_a_stored_record_is_read_and_told_alike(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    for one in (content, {**content, **NEW}):
        record = RunRecord.from_json(one)
        expected = {**one, "space": {**one["space"], "schema_version": 1}}
        assert json.dumps(record.to_json()) == json.dumps(expected), "the order of keys included"
        assert RunRecord.from_json(record.to_json()) == record


def test_what_a_file_lacks_is_not_told(tmp_path: Path) -> None:
    assert read_run(tmp_path) is None
    assert RunRecord.from_json({}).to_json() == {}
    record = RunRecord.from_json({"seed": 3, "test_cases": None})
    assert (record.seed, record.test_cases, record.steps, record.max_gflops) == (3, None, 0, None)
    assert record.to_json() == {"seed": 3, "test_cases": None}
    assert RunRecord(seed=3).to_json()["synthetic_task"] is None, "a new record tells all"


def test_unknown_keys_stay_when_a_run_goes_on(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    space, file = tmp_path / "space.yaml", tmp_path / "run" / "run.json"
    space.write_text(dump(space_tree), encoding="utf-8")
    fakes.run_fake(space, file.parent, 1, fakes.FakePool())
    before = {**json.loads(file.read_text(encoding="utf-8")), **NEW}
    file.write_text(json.dumps(before), encoding="utf-8")
    fakes.run_fake(space, file.parent, 2, fakes.FakePool())
    assert json.loads(file.read_text(encoding="utf-8")) == before
