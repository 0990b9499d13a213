"""The commands of docs/bench.md are ones that the verb takes."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_group

from archspec.cli.main import app
from archspec.spec.bundled import bundled
from archspec.spec.yaml_file import dump

PAGE = (Path(__file__).parents[3] / "docs" / "bench.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("archspec bench")
]


def test_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {**bundled("small-unet").tree, "name": "my-net"}
    Path("my-net.yaml").write_text(dump(tree), encoding="utf-8")
    command = get_group(app).commands["bench"]
    assert len(LINES) == 2
    for line in LINES:
        given = command.make_context("bench", shlex.split(line)[2:]).params
        assert given["data"] and given["out"] == Path("bench")


def test_options_are_there() -> None:
    names = {name for one in get_group(app).commands["bench"].params for name in one.opts}
    told = set(re.findall(r"`(--[\w-]+)", PAGE))
    assert told and told <= names
