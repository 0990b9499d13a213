"""What `report --json` says of runs that earlier releases stored, word for word.

The texts in `tests/golden/report` are those of before trials, runs and confirmations had types.
`make golden` rewrites them.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "golden" / "report"
RUNS = {
    "finished": TESTS / "fixtures/releases/047295c/finished",
    "interrupted": TESTS / "fixtures/releases/047295c/interrupted",
    "first_release": TESTS / "search/study/stored/first_release",
}

Cli = Callable[..., tuple[int, str, str]]


def areas(report: dict[str, Any]) -> list[float]:
    """Take out what logarithms are summed for: the last digit is the machine's."""
    return [point.pop("hypervolume") for point in report["hypervolume"]["points"]]


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_is_reported_as_ever(name: str, tmp_path: Path, cli: Cli) -> None:
    run = shutil.copytree(RUNS[name], tmp_path / name)  # opening it may write beside it
    code, out, err = cli("report", run, "--json")
    assert code == 0, err
    path, found = GOLDEN / f"{name}.json", json.loads(out)
    if os.environ.get("ARCHSPEC_GOLDEN") == "write":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    expected = json.loads(path.read_text(encoding="utf-8"))
    assert areas(found) == pytest.approx(areas(expected))
    assert json.dumps(found) == json.dumps(expected), "the order of keys included"
