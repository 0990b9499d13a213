"""The toolkit for raw trees: paths, reading, writing, freezing."""

import copy
from typing import Any

import pytest

from archspec.spec.tree import (
    children,
    frozen,
    mapped,
    node_at,
    paths_at,
    replaced,
    split_path,
    thawed,
    unwritable,
    walk,
    with_node,
)
from archspec.spec.yaml_file import NodePath
from blocks.errors import Place, SpecError

AT = Place("x=1", kind="override")

LISTS: dict[str, Any] = {
    "name": "net",
    "encoder": {"stages": [{"width": 8, "norm": None}, {"width": 16}]},
    "0": {"a": 1, "b": 2},
}
TUPLES: dict[str, Any] = {
    **LISTS,
    "encoder": {"stages": ({"width": 8, "norm": None}, {"width": 16})},
}
both = pytest.mark.parametrize("tree", [LISTS, TUPLES], ids=["lists", "tuples"])


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("encoder.stages.0.width", ("encoder", "stages", 0, "width")),
        (" encoder.stages[10].width ", ("encoder", "stages", 10, "width")),
        ("stages.-1", ("stages", "-1")),
        ("stages.\u00b2.1234567890", ("stages", "\u00b2", "1234567890")),
        ("a..b.", ("a", "b")),
        ("", ()),
    ],
)
def test_a_text_is_split_into_keys_and_indices(text: str, path: NodePath) -> None:
    assert split_path(text) == path


@both
def test_children_of_mappings_lists_and_scalars(tree: dict[str, Any]) -> None:
    assert children(tree["0"]) == [("a", 1), ("b", 2)]
    stages = tree["encoder"]["stages"]
    assert children(stages) == [(0, stages[0]), (1, stages[1])]
    assert children("net") == children(None) == children([]) == []


@both
def test_a_walk_meets_every_node_above_those_below_it(tree: dict[str, Any]) -> None:
    found = list(walk(tree))
    assert [".".join(map(str, path)) for path, _ in found] == [
        "",
        "name",
        "encoder",
        "encoder.stages",
        "encoder.stages.0",
        "encoder.stages.0.width",
        "encoder.stages.0.norm",
        "encoder.stages.1",
        "encoder.stages.1.width",
        "0",
        "0.a",
        "0.b",
    ]
    nowhere = object()
    assert all(node_at(tree, path, nowhere) is node for path, node in found)


@both
@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("encoder.stages.1.width", 16),
        ("encoder.stages.0.norm", None),
        ("0.b", 2),
        ("encoder.stages.2.width", "nowhere"),
        ("encoder.stages.all", "nowhere"),
        ("encoder.stages.0.norm.kind", "nowhere"),
        ("encoder.depth", "nowhere"),
        ("name.0", "nowhere"),
    ],
)
def test_a_node_or_the_default_is_read(tree: dict[str, Any], text: str, want: Any) -> None:
    assert node_at(tree, split_path(text), "nowhere") == want
    assert node_at(tree, split_path(text)) == (None if want == "nowhere" else want)
    assert node_at(tree, ("encoder", "stages", -1)) is None


@both
@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        ("encoder.stages.*.width", ["encoder.stages.0.width", "encoder.stages.1.width"]),
        ("encoder.*.*.norm", ["encoder.stages.0.norm", "encoder.stages.1.norm"]),
        ("0.*", ["0.a", "0.b"]),
        ("decoder.width", ["decoder.width"]),
        ("name.*", []),
        ("decoder.*", []),
    ],
)
def test_a_pattern_means_paths(tree: dict[str, Any], pattern: str, want: list[str]) -> None:
    assert paths_at(tree, split_path(pattern)) == [split_path(text) for text in want]


@both
def test_children_are_changed_in_their_kind_of_container(tree: dict[str, Any]) -> None:
    stages = tree["encoder"]["stages"]
    assert mapped(tree["0"], lambda key, child: (key, child)) == {"a": ("a", 1), "b": ("b", 2)}
    changed = mapped(stages, lambda index, stage: index + stage["width"])
    assert changed == type(stages)([8, 17])
    assert mapped("net", lambda key, child: None) == "net"


@both
@pytest.mark.parametrize(
    "text",
    ["encoder.stages.1.width", "encoder.stages.1", "name", "0.b", "decoder.act", "", "new.0.1"],
)
def test_a_node_is_written_into_a_copy(tree: dict[str, Any], text: str) -> None:
    before, path = copy.deepcopy(tree), split_path(text)
    changed = with_node(tree, path, {"new": 1})
    assert tree == before
    assert replaced(tree, path, {"new": 1}, AT) == changed
    assert node_at(changed, path) == {"new": 1}
    for other, node in walk(before):
        if any(str(a) != str(b) for a, b in zip(path, other, strict=False)):  # beside the path
            assert node_at(changed, other, "nowhere") == node


@both
@pytest.mark.parametrize(
    ("text", "end", "message"),
    [
        (
            "encoder.stages.2.width",
            "encoder.stages",
            "-s x=1  encoder.stages is a list of 2; 2 is not an index of it",
        ),
        (
            "encoder.stages.all",
            "encoder.stages",
            "-s x=1  encoder.stages is a list of 2; all is not an index of it",
        ),
        ("name.first.second", "name", "-s x=1  name is 'net', which has no field 'first'"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(
    tree: dict[str, Any], text: str, end: str, message: str
) -> None:
    assert unwritable(tree, split_path(text)) == split_path(end)
    with pytest.raises(SpecError) as error:
        replaced(tree, split_path(text), 1, AT)
    assert str(error.value) == message


def test_a_root_that_is_no_mapping_is_called_the_spec() -> None:
    with pytest.raises(SpecError, match="-s x=1  the spec is 'net', which has no field 'x'"):
        replaced("net", ("x",), 1, AT)


def test_what_can_be_written_has_no_end() -> None:
    assert unwritable(TUPLES, ("encoder", "stages", 0, "norm", "kind")) is None
    assert unwritable(TUPLES, ("decoder", 0, "act")) is None


def test_freezing_and_thawing_undo_each_other() -> None:
    assert frozen(LISTS) == TUPLES
    assert thawed(TUPLES) == LISTS
    assert frozen(frozen(LISTS)) == TUPLES
    assert type(thawed(TUPLES)["encoder"]["stages"]) is list


def test_what_is_thawed_shares_nothing() -> None:
    stage = {"width": 8}
    first, second = thawed((stage, stage))
    assert first == second == stage
    assert first is not second
