"""confirmed.json as a record: read and written alike, and refused where it is something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from search.retrain.confirmation import Confirmation

FILE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c" / "finished"


@pytest.fixture
def content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILE / "confirmed.json").read_text(encoding="utf-8"))
    return found


def test_a_stored_confirmation_is_read_and_told_alike(content: dict[str, Any]) -> None:
    found = Confirmation.from_json(content)
    assert json.dumps(found.to_json()) == json.dumps(content), "the order of keys included"
    assert found.points[0].scores("test").seeds == content["points"][0]["test"]["seeds"]
    assert f"test cases:\n  {found.differences[0].a} - " in found.text()


def test_unknown_keys_stay(content: dict[str, Any]) -> None:
    content["points"][0]["watts"] = [3]
    later = {**content, "watts": {"a": None}, "other": 3}
    assert Confirmation.from_json(later).to_json() == later


def test_without_a_test_part_and_an_interval(content: dict[str, Any]) -> None:
    for point in content["points"]:
        del point["test"]
    content |= {"compared_on": "validation", "num_cases": {"validation": 1}}
    for key in ("low", "high", "p", "p_holm"):
        content["differences"][0][key] = None
    found = Confirmation.from_json(content)
    assert found.to_json() == content
    assert not found.differences[0].has_interval
    assert "one case, no interval" in found.text() and "so it flatters" in found.text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 3},
        {"points": [3]},
        {"seeds": "two"},
        {"num_cases": {}},
        {"num_cases": {"validation": 2, "test": "two"}},
        {"differences": None},
        {"points": [{"trial": 1}]},
    ],
)
def test_what_is_no_confirmation_is_refused(content: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, KeyError, ValueError)):
        Confirmation.from_json({**content, **wrong})


def test_a_point_without_its_test_scores_is_refused(content: dict[str, Any]) -> None:
    del content["points"][0]["test"]
    with pytest.raises(ValueError, match="without test"):
        Confirmation.from_json(content)
