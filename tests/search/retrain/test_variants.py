"""What an ablation trains: each variant differs from the original in one part, and is buildable."""

from typing import Any

import pytest

from archspec import plan
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.load import load
from blocks.base import SpecError
from search.retrain.variants import Variants, variants_json, variants_of, variants_text

TREE: dict[str, Any] = {
    "name": "net",
    "patch_size": [32, 32, 32],
    "encoder": {
        "stages": [
            {"width": 16, "mixer": {"kind": "conv"}, "local": {"kind": "gsc"}},
            {
                "width": 16,
                "mixer": {"kind": "mamba", "d_state": 4},
                "block": {"kind": "residual", "gate": "conv"},
                "ffn": {"kind": "mix", "ratio": 3},
                "post": {"kind": "conv"},
            },
            {"width": 32, "mixer": {"kind": "identity"}},
            {"width": 32, "depth": 0, "mixer": {"kind": "tom"}, "ffn": {"kind": "mix"}},
        ]
    },
    "decoder": {"kind": "concat", "fue": True, "norm": "instance", "head": "transpose"},
}


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(TREE, in_channels=2, num_classes=3)


@pytest.fixture(scope="module")
def variants(planned: Plan) -> Variants:
    return variants_of(planned)


def test_every_part_has_its_variants(variants: Variants) -> None:
    found = {one.name for one in variants.others}
    (matched,) = (name for name in found if "conv of width" in name)
    assert matched.startswith("stage 1 mixer mamba -> conv of width ")
    assert found - {matched} == {
        "stage 0 mixer conv -> identity",
        "stage 0 local gsc -> none",
        "stage 1 mixer mamba -> identity",
        "stage 1 gate conv -> none",
        "stage 1 ffn mix -> mlp",
        "stage 1 post conv -> none",
        "decoder concat -> sum",
        "decoder concat -> mlp",
        "decoder fue -> none",
    }
    assert variants.refused == {}


def test_a_variant_differs_in_one_node(variants: Variants) -> None:
    original = variants.original.spec.tree()
    for one in variants.others:
        tree = one.spec.tree()
        changed = {key for key in original if tree[key] != original[key]} - {"name"}
        if one.part.startswith("decoder"):
            assert changed == {"decoder"}
            continue
        assert changed == {"encoder"}
        index = int(one.part.split()[1])
        pairs = zip(tree["encoder"]["stages"], original["encoder"]["stages"], strict=True)
        for number, (stage, before) in enumerate(pairs):
            nodes = {key for key in before if stage[key] != before[key]}
            part = {"gate": "block"}.get(one.part.split()[2], one.part.split()[2])
            allowed = {part, "width"} if "conv of width" in one.name else {part}
            assert nodes == (set() if number != index else nodes & allowed), one.name
            assert number != index or part in nodes, one.name


def test_the_matched_convolution_costs_what_the_mixer_did(
    planned: Plan, variants: Variants
) -> None:
    for one in variants.others:
        if "conv of width" in one.name:
            assert one.cost.macs == pytest.approx(variants.original.cost.macs, rel=0.03)
            stages = plan(one.spec, in_channels=2, num_classes=3).stages
            assert one.instead == f"conv of width {stages[1].out.channels}"


def test_the_decoder_keeps_what_both_kinds_have(variants: Variants) -> None:
    decoders = {one.instead: one.spec.decoder for one in variants.others if "concat" in one.part}
    assert decoders["sum"].norm == "instance"  # type: ignore[union-attr]
    assert {decoder.head for decoder in decoders.values()} == {"transpose"}


def test_what_cannot_be_is_told_with_its_reason() -> None:
    """At these widths, one channel more is a quarter of the network."""
    stage = {"width": 2, "mixer": {"kind": "mamba"}}
    tree = {**TREE, "encoder": {"stages": [stage]}, "decoder": {"kind": "sum"}}
    found = variants_of(resolve(tree), only="*conv")
    assert found.others == []
    assert "no widths of net" in found.refused["stage 0 mixer mamba -> matched conv"]
    text = variants_text(found)
    assert "left out: stage 0 mixer mamba -> matched conv: match: " in text


def test_a_pattern_chooses(planned: Plan) -> None:
    found = variants_of(planned, only="stage 1 * -> none")
    assert [one.part for one in found.others] == ["stage 1 gate conv", "stage 1 post conv"]
    with pytest.raises(SpecError, match=r"only='stage 9\*': no variant.*stage 0 mixer conv"):
        variants_of(planned, only="stage 9*")


def test_costs_are_shown_as_differences(variants: Variants) -> None:
    lines = variants_text(variants).splitlines()
    cost, other = variants.original.cost, variants.others[0].cost
    assert lines[1].split() == [
        "net",
        f"{cost.macs / 1e9:.3f}",
        f"{cost.scan_flops / 1e9:.3f}",
        f"{cost.params:,}",
    ]
    assert lines[2].split()[-1] == f"{other.params - cost.params:+,}"
    assert max(map(len, lines)) <= 80
    networks = variants_json(variants)["networks"]
    assert [one["params"] for one in networks][:2] == [cost.params, other.params]


@pytest.mark.parametrize(
    "name",
    [
        "segresmamba",
        *(pytest.param(n, marks=pytest.mark.long) for n in ("segmamba", "segmaformer")),
    ],
)
def test_the_papers_networks_have_variants_of_every_mixer(name: str) -> None:
    found = variants_of(resolve(name), only="stage * mixer *")
    assert found.refused == {}
    assert len(found.others) == 8
    assert len({load(one.spec.tree()).name for one in found.others}) == 4
