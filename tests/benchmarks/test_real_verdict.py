"""The verdict on real data: what the docs show is what the rule says of the rows kept beside it."""

import re
import shutil
from pathlib import Path

import pytest

from search.verdict.judge import PAGE, verdict

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "real" / "verdict"
SHOWN = ROOT / "docs" / "experiments" / "verdict.md"


def test_the_rows_give_the_page(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "hippocampus"))
    found = verdict(run)
    assert found.markdown() == (RUN / PAGE).read_text(encoding="utf-8")
    assert (found.answer, found.unit, found.units) == ("keep", "person", 26)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_the_docs_show_the_page(part: int) -> None:
    """Its three sections, with links from where the docs are."""
    _, *parts = re.split(r"^#+ .*\n", (RUN / PAGE).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(parts) == 3
    linked = re.sub(r"\]\((?=[\w/.#]+\))", "](../../benchmarks/real/verdict/", parts[part].strip())
    assert linked in SHOWN.read_text(encoding="utf-8")


def test_all_that_it_links_to_is_kept() -> None:
    for target in re.findall(r"\]\(([^)#]+)", (RUN / PAGE).read_text(encoding="utf-8")):
        assert (RUN / target).is_file(), target
