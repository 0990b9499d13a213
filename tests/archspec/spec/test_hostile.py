"""Hostile text: huge, deep, or printed to harm. What is counted is refused before it is built."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from archspec.network.resolve import resolve
from archspec.spec import yaml_file
from archspec.spec.load import MAX_OVERRIDES, load, validate
from archspec.spec.messages import MAX_EXPLAINED
from archspec.spec.yaml_file import compose, parse
from blocks.errors import SpecError, printable, quoted

HEAD = (Path(__file__).with_name("net.yaml")).read_text(encoding="utf-8")
ALIASES = "".join(
    f"{one}: &{one} [{', '.join([f'*{below}'] * 9)}]\n" for below, one in pairwise("abcdefghi")
)
LARGE = {
    "a list of ones": f"x: [{'1,' * 2_000}1]\n",
    "a list of lists": f"x: [{'[],' * 2_000}1]\n",
    "keys": "".join(f"k{number}: {number}\n" for number in range(2_000)),
    "one key again and again": "a: 1\n" * 2_000,
    "stages": "x:\n" + "  - {width: 8, mixer: {kind: conv}}\n" * 300,
    "anchors": "x:\n" + "".join(f"  - &a{number} 1\n" for number in range(2_000)),
    "aliases": "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + ALIASES,
    "aliases of one anchor": f"a: &a [{'1,' * 30}1]\nb: [{'*a,' * 50}1]\n",
}
DEEP = {
    "lists": f"x: {'[' * 100_000}",
    "mappings": f"x: {'{a: ' * 50_000}",
    "lists in lines": f"x:\n  {'- ' * 100_000}",
    "questions": f"x:\n  {'? ' * 100_000}",
    "an alias of itself": "x: &a [*a]\n",
}


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the nodes that are composed."""
    count: list[int] = []
    real = yaml.SafeLoader.compose_node

    def compose_node(*arguments: Any) -> Any:
        count.append(1)
        return real(*arguments)

    monkeypatch.setattr(yaml.SafeLoader, "compose_node", compose_node)
    compose.cache_clear()
    yield count
    compose.cache_clear()


@pytest.mark.parametrize("name", LARGE)
def test_nodes_are_counted_while_they_are_composed(
    name: str, composed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_file, "MAX_NODES", 1000)
    with pytest.raises(SpecError, match="too large; at most 1,000 nodes") as caught:
        compose(HEAD + LARGE[name], "net.yaml")
    assert len(composed) <= 1000
    assert caught.value.problems[0].where is not None
    assert caught.value.problems[0].where.line is not None


@pytest.mark.parametrize("name", DEEP)
def test_levels_are_counted_while_they_are_composed(name: str, composed: list[int]) -> None:
    with pytest.raises(SpecError, match="nested too deeply; at most 64 levels"):
        compose(HEAD + DEEP[name], "net.yaml")
    assert len(composed) < 500


def test_a_text_is_parsed_once(composed: list[int]) -> None:
    compose(HEAD, "net.yaml")
    first = len(composed)
    compose(HEAD, "net.yaml")
    assert len(composed) == first > 10


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('"\\ud800": 1\n', "a key holds half of a surrogate pair"),
        ('title: "a\\udfffb"\n', "title: holds half of a surrogate pair"),
        ('title: ["\\ud83d\\ude00"]\n', "title.0: holds half of a surrogate pair"),
    ],
)
def test_half_a_surrogate_pair_is_no_text(text: str, want: str) -> None:
    with pytest.raises(SpecError, match=want):
        load(parse_problems(HEAD + text))


def parse_problems(text: str) -> Any:
    source = compose(text, "net.yaml")
    raise SpecError(source.problems)


def test_of_very_many_mistakes_the_first_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for what was meant is slow; the number that is told counts all of them."""
    asked: list[str] = []

    def nearest(word: str, allowed: object) -> str:
        asked.append(word)
        return ""

    monkeypatch.setattr("archspec.spec.messages.nearest", nearest)
    number = 4 * MAX_EXPLAINED
    source = parse(HEAD + "".join(f"k{n}: 1\n" for n in range(number)), "net.yaml")
    with pytest.raises(SpecError) as caught:
        validate(source)
    assert str(caught.value).splitlines()[-1] == f"and {number - 9} more mistakes"
    assert len(asked) == MAX_EXPLAINED


def test_stages_are_counted_before_they_are_validated() -> None:
    stage = {"width": 4, "mixer": {"kind": "nobody"}}
    with pytest.raises(SpecError) as caught:
        load(
            {
                "name": "a",
                "patch_size": [8, 8],
                "encoder": {"stages": [stage] * 17},
                "decoder": {"kind": "sum"},
            }
        )
    assert len(caught.value.problems) == 1
    assert "encoder.stages: must have at most 16 entries, but has 17" in str(caught.value)


def itself() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    tree["a"] = tree
    return tree


def nested(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = {"a": [tree]}
    return tree


@pytest.mark.parametrize("tree", [itself(), nested(33), nested(50_000)], ids=range(3))
def test_mappings_of_python_are_counted_too(tree: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="nested too deeply"):
        load(tree)


def test_a_mapping_of_python_may_be_too_large() -> None:
    with pytest.raises(SpecError, match="too large"):
        load({"name": [[1] * 200] * 200})


@pytest.mark.parametrize(
    ("override", "want"),
    [
        (f"{'a.' * 100_000}b=1", "nested too deeply"),
        (f"name=[{'1,' * 50_000}1]", "too large"),
        (f"name={'[' * 50_000}", "nested too deeply"),
        ("name=a\x1b[2Jb", "unacceptable character"),
        ("na\x1b[2Jme=b", r"na\\x1b\[2Jme"),
        ("na\u2028me=b", r"na\\u2028me"),
        ("na\udcffme=b", r"na\\udcffme"),
        ("na\nme=b", r"na\\nme"),
        ("name=a\nb: [", r"-s name=a\\nb: \["),
    ],
    ids=range(9),
)
def test_overrides_of_any_kind_are_told_in_one_printable_line(override: str, want: str) -> None:
    with pytest.raises(SpecError, match=want) as caught:
        resolve("small-unet", overrides=[override])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 4000


def test_overrides_are_counted() -> None:
    assert load("small-unet", overrides=["name=a"] * MAX_OVERRIDES).name == "a"
    with pytest.raises(SpecError, match="too many overrides; allowed: at most 500"):
        load("small-unet", overrides=["name=a"] * (MAX_OVERRIDES + 1))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a b \u00e4\u4e2d\U0001f600", "a b \u00e4\u4e2d\U0001f600"),
        ("a\tb\r\nc\x00\x7f\x9b\u200b\u202e\ud800", r"a\tb\r\nc\x00\x7f\x9b\u200b\u202e\ud800"),
        (f"width {10**20}, {10**19}", "width 100000... (21 digits), 10000000000000000000"),
        (f"/tmp/{10**20}/run", f"/tmp/{10**20}/run"),
        ("x" * 5000, f"{'x' * 400}...{'x' * 200}"),
    ],
    ids=range(5),
)
def test_printable(text: str, want: str) -> None:
    assert printable(text) == want


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ((1, "a"), "(1, 'a')"),
        (10**5000, "100000... (5001 digits)"),
        (-(10**5000), "-100000... (5001 digits)"),
        ((1, 10**5000), "(1, 100000... (5001 digits))"),
        ({"a": 10**5000}, "a dict"),
    ],
    ids=range(5),
)
def test_quoted(value: object, want: str) -> None:
    assert quoted(value) == want


def test_the_limits_are_what_messages_say() -> None:
    assert (yaml_file.MAX_NODES, yaml_file.MAX_DEPTH, yaml_file.MAX_BYTES) == (20_000, 64, 1 << 20)
