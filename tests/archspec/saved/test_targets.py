"""Every bundled spec as every target, in 2-D and 3-D, beside the table of docs/deploy.md."""

import re
from pathlib import Path

import pytest

import archspec
from tests.archspec.saved.targets import TARGETS, outcomes, row

PAGE = Path(__file__).parents[3] / "docs" / "deploy.md"
ROWS = [(name, ndim) for name in archspec.list_specs() for ndim in (2, 3)]
CHEAP = [("segmaformer-acdc", 2), ("segmaformer-synapse", 2), ("timm-convnext-tiny", 3)]
"""Refused before there is a network."""

_NUMBER = re.compile(r"\d\.\de-\d\d|\d+\.\d+ %")
"""How far a cell is off: rounding, which depends on the machine."""


def table() -> list[str]:
    """Return the page's lines of the table, without its head."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"| spec | axes | {' | '.join(TARGETS)} |") + 2
    end = lines.index("", start)
    return lines[start:end]


def test_the_table_has_a_row_for_every_spec() -> None:
    assert [tuple(line.split(" | ")[:2]) for line in table()] == [
        (f"| {name}", f"{ndim}-D") for name, ndim in ROWS
    ]


@pytest.mark.parametrize(
    ("name", "axes"),
    [pytest.param(*one, marks=[] if one in CHEAP else pytest.mark.long) for one in ROWS],
)
def test_the_table_says_what_comes_of_it(tmp_path: Path, name: str, axes: int) -> None:
    (line,) = (one for one in table() if one.startswith(f"| {name} | {axes}-D |"))
    found = row(name, axes, outcomes(name, axes, tmp_path))
    assert _NUMBER.sub("off", found) == _NUMBER.sub("off", line)
