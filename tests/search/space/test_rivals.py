"""A library's network in a search: as an anchor, and with holes among its arguments."""

from pathlib import Path
from typing import Any

import pytest

from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.spec.load import load
from archspec.spec.yaml_file import dump
from search.space.control import control_space
from search.space.dry_run import dry_run
from search.space.space import Space, load_space

SMALL = """\
name: small-segresnet
patch_size: [16, 16, 16]
network: {from: monai, name: SegResNet, args: {init_filters: 8}, divisor: 8}
"""


def loaded(folder: Path, tree: dict[str, Any]) -> Space:
    path = folder / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    return load_space(path)


def test_a_rival_is_an_anchor(tmp_path: Path, space_tree: dict[str, Any]) -> None:
    rival = tmp_path / "small.yaml"
    rival.write_text(SMALL, encoding="utf-8")
    anchors = [{"spec": str(rival)}, *space_tree["search"].get("anchors", ())]
    space_tree["encoder"]["stages"][0]["mixer"] = {"kind": "mamba"}
    tree = {**space_tree, "search": {**space_tree["search"], "anchors": anchors}}
    space = loaded(tmp_path, tree)
    sizes = InputSizes(patch_size=(12, 16, 16))
    found = dry_run(space, sizes, seconds_per_step=1)
    (told,) = (one for one in found.to_json(2, 1)["anchors"] if one["spec"] == str(rival))
    assert told["over"] == []
    assert told["flops"] == cost_plan(plan(load(rival), sizes)).flops
    kept = [anchor.get("spec") for anchor in control_space(space).settings.anchors]
    assert str(rival) not in kept, "nobody knows by what it mixes"


def test_arguments_have_holes(tmp_path: Path) -> None:
    args = {"init_filters": {"choice": [8, 16]}, "blocks_down": [1, 2, 2, 4]}
    network = {"from": "monai", "name": "SegResNet", "args": args, "divisor": 8}
    tree = {"name": "rivals", "patch_size": [16, 16, 16], "network": network}
    space = loaded(tmp_path, {**tree, "search": {"steps": 4}})
    assert [hole.name for hole in space.holes()] == ["network.args.init_filters"]
    found = dry_run(space, InputSizes(), seconds_per_step=1)
    filters = [one.planned.spec.network.args["init_filters"] for one in found.samples]  # type: ignore[union-attr]
    assert sorted(filters) == [8, 16]
    wrong = {**network, "args": {"init_filters": {"choice": [8, 9]}}}
    with pytest.raises(ValueError, match="SegResNet refuses these arguments"):
        loaded(tmp_path, {**tree, "network": wrong, "search": {"steps": 4}})
