"""Search spaces: holes, their validation when loaded, sampling, anchors."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.space import Space, load_space

BASE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": 4, "mixer": {"kind": "conv"}},
            {"width": {"choice": [4, 8]}, "mixer": {"kind": "conv"}},
        ]
    },
    "decoder": {"kind": "sum"},
}


def write(folder: Path, tree: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    return path


def with_stage(**fields: Any) -> dict[str, Any]:
    stage = {**BASE["encoder"]["stages"][1], **fields}
    return {**BASE, "encoder": {"stages": [BASE["encoder"]["stages"][0], stage]}}


def sample(space: Space, count: int, seed: int = 0) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_every_kind_of_hole_is_sampled_within_its_range(tmp_path: Path) -> None:
    tree = with_stage(
        depth={"int": [1, 5], "step": 2},
        mixer={
            "choice": [
                {"kind": "conv", "kernel_size": {"choice": [1, 3]}},
                {"kind": "mamba", "d_state": {"choice": [4, 8]}},
            ]
        },
    )
    tree["training"] = {"lr": {"float": [1e-4, 1e-2], "log": True}}
    space = load_space(write(tmp_path, tree))
    specs = sample(space, 60)
    stages = [spec.encoder.stages[1] for spec in specs]
    assert {stage.width for stage in stages} == {4, 8}
    assert {stage.depth for stage in stages} == {1, 3, 5}
    assert {stage.mixer.kind for stage in stages} == {"conv", "mamba"}
    assert {s.mixer.d_state for s in stages if s.mixer.kind == "mamba"} == {4, 8}
    assert {s.mixer.kernel_size for s in stages if s.mixer.kind == "conv"} == {1, 3}
    assert all(1e-4 <= spec.training.lr <= 1e-2 for spec in specs)
    assert len({spec.training.lr for spec in specs}) == 60


def test_scan_orders_are_holes_as_a_list_and_one_by_one(tmp_path: Path) -> None:
    whole = {"choice": [["forward"], ["whd", "-whd"]]}
    single = ["dhw", {"choice": ["hwd", "-wdh"]}]
    orders = set()
    for hole in (whole, single):
        tree = with_stage(mixer={"kind": "mamba", "d_state": 4, "orders": hole})
        specs = sample(load_space(write(tmp_path, tree)), 20)
        orders |= {spec.encoder.stages[1].mixer.orders for spec in specs}
    assert orders == {("forward",), ("whd", "-whd"), ("dhw", "hwd"), ("dhw", "-wdh")}
    tree = with_stage(mixer={"kind": "tom", "orders": ["dhw", {"choice": ["hwd", "forward"]}]})
    with pytest.raises(SpecError, match="forward is there as dhw, which reads alike"):
        load_space(write(tmp_path, tree))


def test_holes_inside_a_member_have_names_of_their_own(tmp_path: Path) -> None:
    member = {"kind": "mamba", "d_state": {"choice": [4, 8]}}
    tree = with_stage(mixer={"choice": [{"kind": "conv"}, member]})
    names = [hole.name for hole in load_space(write(tmp_path, tree)).holes()]
    assert "encoder.stages.1.mixer[mamba].d_state" in names


def test_same_seed_same_specs(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, BASE))
    assert sample(space, 8, seed=3) == sample(space, 8, seed=3)


def test_anchors_take_first_options_for_what_they_leave_open(tmp_path: Path) -> None:
    tree = with_stage(depth={"int": [2, 4]})
    tree["search"] = {"anchors": [{}, {"encoder.stages.1.width": 8}]}
    space = load_space(write(tmp_path, tree))
    assert space.anchors() == [
        {"encoder.stages.1.depth": 2, "encoder.stages.1.width": 4},
        {"encoder.stages.1.depth": 2, "encoder.stages.1.width": 8},
    ] or space.anchors() == [
        {"encoder.stages.1.width": 4, "encoder.stages.1.depth": 2},
        {"encoder.stages.1.width": 8, "encoder.stages.1.depth": 2},
    ]


CONV = {"kind": "conv"}
NAMED = {"choice": [1, 3], "name": "heads"}


def choice_of_heads(hole: dict[str, Any], **own: Any) -> dict[str, Any]:
    """Return a choice whose second member, of heads, stands at width 4."""
    return {"choice": [CONV, {"kind": "attention", "num_heads": hole}], **own}


BAD = {
    "a member with an unknown key": (
        with_stage(mixer={"choice": [{"kind": "conv"}, {"kind": "conv", "kernle_size": 5}]}),
        "kernle_size",
    ),
    "a member that cannot be planned": (
        with_stage(mixer={"kind": "attention", "num_heads": {"choice": [1, 7]}}),
        "nearest",
    ),
    "an unknown mixer in a member": (
        with_stage(mixer={"choice": [{"kind": "conv"}, {"kind": "mambba"}]}),
        "did you mean 'mamba'",
    ),
    "the high end of a range": (with_stage(width={"int": [-3, 8]}), "width"),
    "low above high": (with_stage(width={"int": [8, 4]}), "low <= high"),
    "a step that does not divide": (with_stage(width={"int": [4, 9], "step": 2}), "step"),
    "no number": (with_stage(width={"int": ["four", 8]}), "two numbers"),
    "an empty choice": (with_stage(width={"choice": []}), "at least one"),
    "equal members": (with_stage(width={"choice": [4, 4]}), "equal members"),
    "no hole at all": (with_stage(width=4), "no holes"),
    "a hole in the patch": (
        {**BASE, "patch_size": {"choice": [[16, 16, 16], [32, 32, 32]]}},
        "a search trains at the dataset's",
    ),
    "a hole in an axis of the patch": (
        {**BASE, "patch_size": [16, 16, {"choice": [16, 32]}]},
        "a search trains at the dataset's",
    ),
    "a hole in the classes": ({**BASE, "num_classes": {"int": [2, 3]}}, "no hole can stand here"),
    "an anchor for no hole": (
        {**BASE, "search": {"anchors": [{"encoder.stages.1.widht": 8}]}},
        "no such hole",
    ),
    "an anchor outside its hole": (
        {**BASE, "search": {"anchors": [{"encoder.stages.1.width": 5}]}},
        "not in",
    ),
    "a named hole in a later member": (
        with_stage(width=4, mixer=choice_of_heads(NAMED)),
        "num_heads: 3 must divide",
    ),
    "the high end of a named range in a later member": (
        with_stage(width=4, mixer=choice_of_heads({"int": [2, 3], "name": "heads"})),
        "num_heads: 3 must divide",
    ),
    "a hole in a later member of a named choice in a later member": (
        {
            **BASE,
            "encoder": {
                "stages": [
                    BASE["encoder"]["stages"][0],
                    {
                        "choice": [
                            {"width": 4, "mixer": CONV},
                            {"width": 4, "mixer": choice_of_heads({"choice": [1, 3]}, name="m")},
                        ]
                    },
                ]
            },
        },
        "num_heads: 3 must divide",
    ),
    "a hole that is tied in a later member": (
        {
            **BASE,
            "encoder": {
                "stages": [
                    {"width": 6, "mixer": {"kind": "attention", "num_heads": NAMED}},
                    {"width": 4, "mixer": choice_of_heads({"tie": "heads"})},
                ]
            },
        },
        "num_heads: 3 must divide",
    ),
    "an unknown setting": ({**BASE, "search": {"stepps": 5}}, "stepps"),
    "a negative budget": ({**BASE, "search": {"steps": -5}}, "steps"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_spaces_are_refused_in_one_line_with_position(tmp_path: Path, case: str) -> None:
    tree, part = (BAD | BAD_NAMES)[case]
    path = write(tmp_path, tree)
    with pytest.raises(SpecError) as error:
        load_space(path)
    text = str(error.value)
    assert part in text
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+  ", text), text
    assert "\n" not in text


def test_an_error_in_a_member_points_at_the_member(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "name: tiny\n"
        "patch_size: [16, 16, 16]\n"
        "encoder:\n"
        "  stages:\n"
        "    - width: 4\n"
        "      mixer:\n"
        "        choice:\n"
        "          - {kind: conv}\n"
        "          - {kind: mamba, d_stat: 8}\n"
        "decoder: {kind: sum}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError, match=r"space\.yaml:9:27  encoder\.stages\.0\.mixer\.d_stat"):
        load_space(path)


def test_wildcards_open_and_set_every_stage(tmp_path: Path) -> None:
    tree = {**BASE, "search": {"holes": {"encoder.stages.*.depth": {"choice": [1, 2, 3]}}}}
    tree["search"]["anchors"] = [{"encoder.stages.*.depth": 3, "encoder.stages.0.depth": 2}]
    space = load_space(write(tmp_path, tree), overrides=("encoder.stages.*.norm=layer",))
    names = [hole.name for hole in space.holes()]
    assert names == [
        "encoder.stages.0.depth",
        "encoder.stages.1.width",
        "encoder.stages.1.depth",
    ]
    assert space.anchors()[0]["encoder.stages.0.depth"] == 2
    assert space.anchors()[0]["encoder.stages.1.depth"] == 3
    specs = sample(space, 30)
    assert {stage.norm for spec in specs for stage in spec.encoder.stages} == {"layer"}
    assert len({tuple(stage.depth for stage in spec.encoder.stages) for spec in specs}) > 5
    assert space.size().combinations == 18


@pytest.mark.parametrize("way", ["tie", "name"])
def test_tied_nodes_take_the_same_value(tmp_path: Path, way: str) -> None:
    mixers = [{"kind": "conv"}, {"kind": "mamba", "d_state": {"choice": [4, 8]}}]
    hole = {"choice": mixers, "name": "mixer"}
    if way == "tie":
        stages = [{"width": 4, "mixer": {"tie": "mixer"}}, {"width": 4, "mixer": hole}]
        tree = {**BASE, "encoder": {"stages": stages}}
    else:
        tree = with_stage(width=4)
        tree["search"] = {"holes": {"encoder.stages.*.mixer": hole}}
    space = load_space(write(tmp_path, tree))
    assert [hole.name for hole in space.holes()] == ["mixer", "mixer[mamba].d_state"]
    specs = sample(space, 30)
    for spec in specs:
        first, second = (stage.mixer for stage in spec.encoder.stages)
        assert first == second
    assert len({repr(spec.encoder.stages[0].mixer) for spec in specs}) == 3
    assert space.size().combinations == 3


def test_size_counts_members_holes_and_names_continuous_ranges(tmp_path: Path) -> None:
    member = {"kind": "mamba", "d_state": {"choice": [4, 8, 16]}}
    depth = {"int": [1, 5], "step": 2}
    tree = with_stage(depth=depth, mixer={"choice": [{"kind": "conv"}, member]})
    assert load_space(write(tmp_path, tree)).size().combinations == 2 * 3 * (1 + 3)
    tree["training"] = {"lr": {"float": [1e-4, 1e-2], "log": True}}
    size = load_space(write(tmp_path, tree)).size()
    assert (size.combinations, size.ranges) == (24, 1)
    assert size.text() == "24 combinations, times 1 continuous range"


BAD_NAMES = {
    "a tie to nothing": (with_stage(width={"tie": "w"}), "no hole has that name"),
    "a tie to its own hole": (
        with_stage(
            mixer={
                "name": "m",
                "choice": [{"kind": "conv"}, {"kind": "mamba", "d_state": {"tie": "m"}}],
            }
        ),
        "inside that hole",
    ),
    "two holes of one name": (
        with_stage(width={"choice": [4, 8], "name": "w"}, depth={"choice": [1, 2], "name": "w"}),
        "another hole is named w",
    ),
    "a name that is no word": (with_stage(width={"choice": [4, 8], "name": "w.1"}), "a word"),
    "holes where nothing is": (
        {**BASE, "search": {"holes": {"decoder.kind.*": {"choice": [1]}}}},
        "no such node",
    ),
    "an index past the end": (
        {**BASE, "search": {"holes": {"encoder.stages.5.width": {"choice": [1]}}}},
        "not an index of a list of 2",
    ),
    "holes among the settings": (
        {**BASE, "search": {"holes": {"search.steps": {"choice": [1, 2]}}}},
        "no node of the network",
    ),
    "no hole at a path": ({**BASE, "search": {"holes": {"name": "x"}}}, "must be a hole"),
    "a wildcard that no hole matches": (
        {**BASE, "search": {"anchors": [{"encoder.*.width": 4}]}},
        "no such hole",
    ),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_bad_ties_and_wildcards_are_refused_in_one_line_with_position(
    tmp_path: Path, case: str
) -> None:
    test_bad_spaces_are_refused_in_one_line_with_position(tmp_path, case)


def test_a_wildcard_override_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"-s decoder\.kind\.\*\.x=1  decoder\.kind\.\*\.x: no such"
    ):
        load_space(write(tmp_path, BASE), overrides=("decoder.kind.*.x=1",))


def test_an_error_in_a_tied_member_points_at_the_text(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "name: tiny\n"
        "patch_size: [16, 16, 16]\n"
        "encoder:\n"
        "  stages:\n"
        "    - {width: 4, mixer: {tie: m}}\n"
        "    - width: 4\n"
        "      mixer: {name: m, choice: [{kind: conv}, {kind: mamba, d_stat: 8}]}\n"
        "decoder: {kind: sum}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError, match=r"space\.yaml:7:\d+  encoder\.stages\.0\.mixer\.d_stat"):
        load_space(path)
