"""A fixed sample of `make fuzz`, and that its generator finds what is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tests.fuzz.specs
from blocks.errors import SpecError
from tests.fuzz.places import LOADER_AND_PLAN, places
from tests.fuzz.run import chunk

ROOT = Path(__file__).parents[2]


def test_a_sample_ends_in_answers_and_refusals() -> None:
    line = [sys.executable, "-m", "tests.fuzz", "--sample"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["findings"] == []
    for kind, number in (("spec", 200), ("space", 50), ("dataset", 20), ("folder", 3)):
        found = told["cases"][kind]
        assert found["taken"] + found["refused"] == found["asked"] == number
        assert min(found["taken"], found["refused"]) > 0, kind
    reached = told["places_that_refuse"]["loader and plan"]
    assert reached["all"] > 80 and reached["reached"] > reached["all"] / 3


class UnprintableError(SpecError):
    def __str__(self) -> str:
        return "a\x1b[2Jb"


@pytest.mark.parametrize(
    ("raised", "want"),
    [
        (KeyError("width"), "KeyError: 'width'"),
        (UnprintableError("a"), "not 10 lines that can be printed"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_must_not_happen_is_found(
    raised: Exception, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*arguments: Any, **options: Any) -> None:
        raise raised

    monkeypatch.setattr(tests.fuzz.specs, "resolve", resolve)
    found = chunk("spec", 0, range(5), timed=False).findings
    assert any(want in one.what and one.case == "spec:0" for one in found)


def test_places_are_those_that_refuse() -> None:
    found = places(LOADER_AND_PLAN)
    plan = (ROOT / "archspec/network/plan.py").read_text(encoding="utf-8").splitlines()
    named = {f"archspec/network/plan.py:{n}" for n, line in enumerate(plan, 1) if "raise S" in line}
    assert named and named <= found
    assert not any(place.startswith("blocks/scan/") for place in found)
