"""YAML text to plain trees: scalars, positions, and what `dump` writes."""

from typing import Any

import pytest

from archspec.spec.tree import frozen
from archspec.spec.yaml_file import Source, dotted, dump, parse

SCALARS = [
    ("1", 1),
    ("-7", -7),
    ("+3", 3),
    ("007", 7),
    ("1e-4", 1e-4),
    ("1E5", 1e5),
    ("1.0e-4", 1e-4),
    (".5", 0.5),
    ("1.", 1.0),
    ("true", True),
    ("False", False),
    ("on", "on"),
    ("yes", "yes"),
    ("no", "no"),
    ("null", None),
    ("~", None),
    ("", None),
    ("0x1F", "0x1F"),
    ("1_000", "1_000"),
    ("12:30:45", "12:30:45"),
    ("2024-01-02", "2024-01-02"),
    ("=", "="),
    (".inf", ".inf"),
    ("'1'", "1"),
    ('"true"', "true"),
    ("!!str 1", "1"),
    ("!!float 1", 1.0),
]


@pytest.mark.parametrize(("text", "want"), SCALARS, ids=[text or "empty" for text, _ in SCALARS])
def test_scalars(text: str, want: Any) -> None:
    found = parse(f"a: {text}", "net.yaml").tree["a"]
    assert found == want
    assert type(found) is type(want)


def test_positions() -> None:
    source = parse("a: 1\nb:\n  - c: 2\n    d: {e: 3}\n", "net.yaml")
    assert source.tree == {"a": 1, "b": ({"c": 2, "d": {"e": 3}},)}
    assert str(source.where(())) == "net.yaml:1:1"
    assert str(source.where(("a",))) == "net.yaml:1:1"
    assert str(source.where(("b", 0))) == "net.yaml:3:5"
    assert str(source.where(("b", 0, "d", "e"))) == "net.yaml:4:9"
    assert str(source.where(("b", 0, "d", "missing", "x"))) == "net.yaml:4:5"
    assert str(Source("spec", {}).where(("a", 0))) == "spec"


def test_merge_keys_are_plain_keys() -> None:
    assert parse("<<: {a: 1}", "net.yaml").tree == {"<<": {"a": 1}}


def test_aliases_are_written_out() -> None:
    assert parse("a: &x [1, 2]\nb: *x", "net.yaml").tree == {"a": (1, 2), "b": (1, 2)}


def test_dotted() -> None:
    assert dotted(("encoder", "stages", 0, "width")) == "encoder.stages.0.width"
    assert "\n" not in dotted(("a\nb", "c"))


TREE = {
    "words": ["1e4", "on", "true", "null", "~", "", "1_000", "007", "0x1F", "=", "<<", "a: b", "#"],
    "numbers": [1, -1, 1e-05, 1e22, 0.1, 3.0],
    "others": [True, False, None, {}, []],
    "text": "long " * 60,
    "lines": "one\ntwo\n",
    "unicode": "\u00e9\u4e2d",
}


def test_dump_is_read_back_identically() -> None:
    found = parse(dump(TREE), "net.yaml").tree
    assert found == frozen(TREE)
    assert list(found) == list(TREE)
    assert [type(x) for x in found["numbers"]] == [type(x) for x in TREE["numbers"]]
