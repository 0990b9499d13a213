"""The verb schema, and `list --fields`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archspec.spec.json_schema import spec_schema
from search.space.json_schema import space_schema

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("of", "expected"), [("spec", spec_schema), ("space", space_schema)])
def test_a_schema_is_printed_or_written(
    of: str, expected: Callable[[], object], cli: Cli, tmp_path: Path
) -> None:
    code, out, _ = cli("schema", of)
    assert (code, json.loads(out)) == (0, expected())
    file = tmp_path / "schema.json"
    assert cli("schema", of, "-o", file)[0] == 0
    assert json.loads(file.read_text(encoding="utf-8")) == expected()
    code, out, err = cli("schema", of, "-o", file)
    assert (code, out) == (2, "")
    assert "exists already" in err
    assert "--force" in err


def test_fields_of_a_kind_of_a_slot_and_of_a_section(cli: Cli) -> None:
    code, out, _ = cli("list", "--fields", "mixer.attention")
    assert code == 0
    assert "num_heads" in out
    assert "mixer.conv" not in out
    assert "mixer.conv" in cli("list", "--fields", "mixer")[1]
    assert "widths" in cli("list", "--fields", "search.match")[1]
    (found,) = json.loads(cli("list", "--fields", "stage", "--json")[1])
    assert [one["name"] for one in found["fields"]][:2] == ["width", "depth"]
    assert cli("list", "--fields", "mixer", "--markdown")[1].startswith("### mixer.conv")


def test_fields_of_nothing_are_refused(cli: Cli) -> None:
    code, _, err = cli("list", "--fields", "mixer.atention")
    assert code == 2
    assert err.count("\n") == 1
    assert "did you mean 'mixer.attention'" in err
