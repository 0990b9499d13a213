"""Spaces whose holes, names, ties and wildcards are no such things, or far too many."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from archspec.spec.find import space_tree
from archspec.spec.tree import thawed, walk
from archspec.spec.yaml_file import dump
from blocks.errors import MAX_LINES, SpecError
from search.space.holes import Hole, SpaceSize
from search.space.shorthand import _matches
from search.space.space import load_space

TREE: dict[str, Any] = {
    "name": "space",
    "patch_size": [8, 8, 8],
    "encoder": {
        "stages": [
            {"width": {"choice": [4, 8], "name": "w"}, "mixer": {"kind": "conv"}},
            {"width": {"tie": "w"}, "mixer": {"choice": [{"kind": "conv"}, {"kind": "mamba"}]}},
        ]
    },
    "decoder": {"kind": "sum"},
}


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    file = tmp_path / "space.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_space(file, overrides=overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) <= MAX_LINES and all(line.isprintable() for line in lines)
    return str(caught.value)


def changed(**stage: Any) -> str:
    tree = copy.deepcopy(TREE)
    tree["encoder"]["stages"][1] |= stage
    return dump(tree)


@pytest.mark.parametrize("tie", [{"a": 1}, ["w"], None, 1, True, "nobody", "w\n", ""])
def test_a_tie_is_the_name_of_a_hole(tmp_path: Path, tie: Any) -> None:
    message = refused(tmp_path, changed(width={"tie": tie}))
    assert "encoder.stages.1.width: tie: " in message and "named holes: w" in message


@pytest.mark.parametrize("name", [None, {"a": 1}, ["w"], 1, True, "", "a b", "a\n", "*"])
def test_a_name_of_a_hole_is_a_word(tmp_path: Path, name: Any) -> None:
    message = refused(tmp_path, changed(width={"choice": [4, 8], "name": name}))
    assert "encoder.stages.1.width: name must be a word" in message


@pytest.mark.parametrize("key", ["*", "encoder.stages.*.width", "*a" * 50 + "b"])
def test_wildcards_of_anchors_over_holes_without_a_word_as_name(tmp_path: Path, key: str) -> None:
    text = changed(width={"choice": [4, 8], "name": None})
    assert "name must be a word" in refused(
        tmp_path, text + f"search: {{anchors: [{{'{key}': 4}}]}}"
    )


def test_a_lone_surrogate_is_no_key(tmp_path: Path) -> None:
    assert "half of a surrogate pair" in refused(
        tmp_path, dump(TREE) + '"\\ud800": {choice: [1, 2]}'
    )


def ties(*, inside: str) -> str:
    holes = [f"x{n}: {{choice: [{inside.format(n=n + 1)}, 1], name: x{n}}}" for n in range(30)]
    return "\n".join([dump(TREE), *holes, "x30: {choice: [1, 2], name: x30}"])


MANY = {
    "ties in ties": (ties(inside="{{tie: x{n}}}, {{tie: x{n}}}"), "too large"),
    "ties in mappings": (ties(inside="{{a: {{tie: x{n}}}, b: {{tie: x{n}}}}}"), "too large"),
    "members": (changed(width={"choice": list(range(1, 1002))}), "choice has 1001 members"),
    "members of all holes": (
        changed(width={"choice": list(range(1, 1001))}, depth={"choice": list(range(1, 1001))}),
        "members of holes, each of which is planned; allowed: at most 2,000",
    ),
    "anchors": (
        f"{dump(TREE)}search:\n  anchors:\n" + "    - {w: 4}\n" * 201,
        "search.anchors: ",
    ),
    "holes by path": (
        f"{dump(TREE)}search:\n  holes:\n"
        + "".join(f"    encoder.stages.0.a{n}: {{choice: [4, 8]}}\n" for n in range(501)),
        "too many nodes are opened",
    ),
    "nodes of a wildcard": (
        f"{dump(TREE)}x: [{'1,' * 600}1]\nsearch: {{holes: {{x.*: {{choice: [1, 2]}}}}}}",
        "too many nodes are opened",
    ),
    "a long path": (
        f"{dump(TREE)}search:\n  holes: {{? '{'a.' * 50_000}b' : {{choice: [1, 2]}}}}\n",
        "nested too deeply",
    ),
    "a huge range": (changed(width={"int": [1, 10**400]}), "16384"),
    "a huge budget": (
        f"{dump(TREE)}search: {{match: {{macs: {{choice: [1{'0' * 400}]}}}}}}",
        "macs",
    ),
    "many rungs": (f"{dump(TREE)}search: {{rungs: 1000000}}", "search.rungs"),
    "a huge memory": (
        f"{dump(TREE)}search: {{limits: {{memory: {'9' * 400}GB}}}}",
        "must be a size such as 12GB",
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_what_would_take_for_ever_is_refused(tmp_path: Path, name: str) -> None:
    text, want = MANY[name]
    assert want in refused(tmp_path, text)


def test_overrides_with_wildcards_are_counted(tmp_path: Path) -> None:
    text = f"{dump(TREE)}x: [{'1,' * 600}1]\n"
    assert "too many overrides" in refused(tmp_path, text, "x.*=2")


def test_a_choice_of_many_is_shown_by_its_first_members() -> None:
    few, many = Hole("a", "choice", ("b", 1, None)), Hole("a", "choice", tuple(range(300)))
    assert few.shown == "['b', 1, null]"
    assert many.shown == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (300 in all)]"
    assert SpaceSize(10**5000, 0).text() == "100000... (5001 digits) combinations"


def test_an_anchor_beside_a_choice_of_many(tmp_path: Path) -> None:
    text = changed(width={"choice": list(range(1, 301)), "name": "v"})
    message = refused(tmp_path, f"{text}search: {{anchors: [{{v: 999}}]}}")
    assert "anchor v: 999 is not in [1, 2, 3, " in message and "(300 in all)]" in message


@pytest.mark.parametrize(
    ("key", "name", "matches"),
    [
        ("*", "a", True),
        ("*", "a.b", False),
        ("*.*", "a.b", True),
        ("a*c*e", "abcde", True),
        ("a*c*e", "abc.e", False),
        ("a**b", "ab", True),
        ("a*a", "a", False),
        ("x.*.width", "x.0.width", True),
        ("x[*].w", "x[mamba].w", True),
        ("*a" * 100 + "b", "a" * 500, False),
    ],
)
def test_wildcards_match_one_part(key: str, name: str, matches: bool) -> None:
    assert _matches(key, name) == matches


HOLES: list[Any] = [
    *({"tie": {"a": 1}}, {"tie": "w"}, {"tie": None}, {"choice": []}, {"choice": None}),
    *({"choice": [1, True]}, {"choice": [4, 8], "name": None}, {"choice": [[1], {}], "name": "w"}),
    *({"int": [8, 4]}, {"int": [1, 10**400]}, {"int": [4, 8], "step": 0}, {"float": ["a", 1]}),
    *(
        {"float": [1, 1e308], "log": 1},
        {"choice": list(range(300))},
        None,
        True,
        10**30,
        "\x1b",
        [],
    ),
]


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.long] * (n >= 40)) for n in range(400)]
)
def test_mutated_space_loads_or_is_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    tree = thawed(space_tree("demo").tree) if seed % 4 == 0 else copy.deepcopy(TREE)
    for _ in range(rng.choice([1, 2, 4])):
        path = rng.choice([path for path, _ in walk(tree)][1:])
        holder: Any = tree
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = copy.deepcopy(rng.choice(HOLES))
    file = tmp_path / "space.yaml"
    file.write_text(dump(tree), encoding="utf-8")
    try:
        load_space(file)
    except SpecError as error:
        lines = str(error).splitlines()
        assert len(lines) <= MAX_LINES and all(line.isprintable() for line in lines)
