"""What drawings say and how it stands there, of networks of all forms."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import pytest
from torch import Tensor, nn

import archspec
from archspec.costs.flops import cost_plan
from archspec.drawing.content import Content, content_of
from archspec.drawing.draw import draw_plan
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from blocks import registry
from blocks.base import StageShape
from blocks.decoders import DECODERS
from blocks.decoders.decoder import Decoder, DecoderSpec, Heads, Skips
from blocks.errors import printable
from tests.archspec.drawing.picture import faults, words

CONV = {"kind": "conv"}
MIXERS = ("conv", "mamba", "tom", "attention", "identity")


def stages(*of: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"width": 4, "mixer": CONV, **one} for one in of]}


MANY = {
    "name": "n" * 200,
    "title": 'A <b>title</b> & "quotes" ]]> \u4e2d\u6587 \u202e' + " of many words" * 30,
    "patch_size": [128, 16, 16],
    "in_channels": 16_384,
    "num_classes": 16_384,
    "encoder": stages(
        {"depth": 20, "mixer": [{"kind": kind} for kind in MIXERS]},
        {
            "depth": 4,
            "width": 4096,
            "mixer": [CONV, {"kind": "identity"}],
            "post": {"kind": "mixer", "mixer": {"kind": "attention"}},
            "skip": {"norm": "layer", "mlp_ratio": 2, "tap": "before_blocks"},
        },
        {"depth": 0},
    ),
    "decoder": {"kind": "mlp"},
    "deep_supervision": {"heads": 3},
}
DEEP = {
    "name": "deep",
    "patch_size": [64, 64],
    "encoder": stages(*[{"downsample": {"stride": 1 if n > 4 else 2}} for n in range(16)]),
    "decoder": {"kind": "concat", "input_skip": True, "fue": True},
    "deep_supervision": {"heads": 6},
}
ONE = {"name": "one", "patch_size": [8, 8], "encoder": stages({}), "decoder": {"kind": "sum"}}
FAR = {
    "name": "far",
    "patch_size": [64, 64],
    "encoder": stages({}, {}, {}, {}),
    "decoder": {"kind": "a_decoder_whose_name_is_far_too_long"},
    "deep_supervision": {"heads": 2},
}
SPECS = {"many": MANY, "deep": DEEP, "one": ONE, "far": FAR}


class FarSpec(DecoderSpec):
    """Has features at a grid that no stage has, as other packages may."""

    kind: Literal["a_decoder_whose_name_is_far_too_long"] = "a_decoder_whose_name_is_far_too_long"

    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        fine = tuple(2 * n for n in skips[0].grid)
        return (StageShape(4, fine), StageShape(4, skips[-1].grid))

    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        return []

    def build(self, skips: Skips, heads: Heads) -> "Far":
        return Far(self.feature_shapes(skips), spec=self, heads=heads)


class Far(Decoder):
    def features(self, skips: list[Tensor]) -> list[Tensor]:
        return [nn.functional.interpolate(skips[-1], scale_factor=16), skips[-1]]


@pytest.fixture
def far() -> Iterator[None]:
    """Register the decoder for as long as a test runs."""
    kinds, origins = dict(DECODERS._kinds), dict(DECODERS._origins)
    DECODERS.register(FarSpec)
    yield
    DECODERS._kinds, DECODERS._origins = kinds, origins
    registry._rebuild()


@cache
def planned(spec: str) -> Plan:
    return resolve(SPECS.get(spec, spec))


@cache
def content(spec: str) -> Content:
    return content_of(planned(spec), cost_plan(planned(spec)))


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("name", SPECS)
def test_texts_fit_and_nothing_overlaps(name: str) -> None:
    svg = draw_plan(planned(name)).svg()
    assert not faults(svg)
    assert "\u202e" not in svg


def test_the_look_at_a_picture_sees_what_is_wrong() -> None:
    svg = archspec.draw("small-unet", patch_size=(16, 16)).svg()
    assert not faults(svg)
    for old, new in (
        (">1 x conv<", f">{'1 x conv' * 9}<"),
        ('<rect class="box" x="44"', '<rect class="box" x="244"'),
        ('x="24" y="40"', 'x="24" y="60"'),
        ("M179 170 L179", "M179 120 L179"),
        ('<text class="ink" x="24"', '<text class="ink" x="824"'),
    ):
        assert svg.count(old) and faults(svg.replace(old, new, 1)), old


def test_a_network_of_stages() -> None:
    found = content("mamba-unet")
    tiles = [(tile.stage, tile.heading, tile.right, tile.grid) for tile in found.rows]
    assert tiles[0] == (None, "input", "1 channel", "64 x 64 x 64")
    assert tiles[3] == (2, "2 x mamba", "width 64", "8 x 8 x 8")
    assert found.rows[3].note == "residual block, mlp FFN"
    assert [tile.mixers for tile in found.rows[2:4]] == [("conv",), ("mamba", "mamba")]
    assert [skip.row for skip in found.skips] == [1, 2, 3, 4]
    assert [(level.row, level.tile.heading) for level in found.levels] == [
        (1, "width 16"),
        (2, "width 32"),
        (3, "width 64"),
    ]
    assert found.flow == "up"
    (head,) = found.heads
    assert (head.level, head.tile.right, head.tile.grid) == (0, "interpolate", "64 x 64 x 64")


@pytest.mark.parametrize("name", ["mamba-unet", "segmamba", "umamba-bot"])
def test_shares_are_of_all_flops(name: str) -> None:
    found = content(name)
    cost = cost_plan(planned(name))
    assert found.decoder is not None
    shares = [found.decoder.share, *(tile.share for tile in found.rows if tile.share is not None)]
    assert sum(shares) == pytest.approx(1)
    assert found.decoder.share == cost.by_path["decoder"].flops / cost.flops


def test_levels_stand_beside_the_stages_that_feed_them() -> None:
    skipped = content("umamba-bot")  # the first of its stages at the finest grid gives nothing
    assert [level.row for level in skipped.levels] == [2, 3, 4, 5, 6]
    assert [head.level for head in skipped.heads] == [0, 1, 2, 3, 4]
    assert skipped.rows[-1].heading == "no blocks + mamba"
    assert skipped.rows[-1].mixers == ("mamba",)
    with_input = content("segmamba")
    assert [level.row for level in with_input.levels] == [0, 1, 2, 3, 4]
    notes = [level.tile.note for level in with_input.levels]
    assert notes == ["1 residual unit + last", *["1 residual unit"] * 3, "bottleneck"]
    assert with_input.levels[-1].tile.heading == "width 768"
    assert with_input.skips[0].label == "FUE, residual unit"
    assert with_input.skips[1].label == "norm, MLP, FUE, residual unit"
    assert content("segformer3d").flow == "fuse"


@pytest.mark.usefixtures("far")
def test_a_decoder_of_another_package_whose_levels_are_at_other_grids() -> None:
    found = content("far")
    assert [(level.row, level.is_fed) for level in found.levels] == [(1, False), (2, False)]
    assert found.flow == "none"
    assert [head.level for head in found.heads] == [0, 1]


def test_cycles_and_what_stands_behind_a_stage() -> None:
    _, cycle, behind, empty = content("many").rows
    assert (cycle.heading, cycle.mixers) == ("20 x cycle", MIXERS)
    assert cycle.note.startswith("conv/mamba/tom/attention/identity, residual block")
    assert behind.heading == "4 x cycle + attention"
    assert behind.mixers == ("conv", "identity", "conv", "identity", "attention")
    assert (empty.heading, empty.mixers) == ("no blocks", ())
    assert content("many").skips[1].label == "before blocks, norm, MLP"


def test_a_padded_patch() -> None:
    svg = archspec.draw("small-unet", patch_size=(15, 16)).svg()
    assert "padded to 16 x 16" in words(svg) and "15 x 16" in words(svg)


def test_titles_and_names_are_escaped_and_named_for_readers_who_hear_them() -> None:
    svg = draw_plan(planned("many")).svg()
    root = ElementTree.fromstring(svg)
    marks = {one.attrib["id"]: one for one in root if "id" in one.attrib}
    title, text = (marks[mark] for mark in root.attrib["aria-labelledby"].split())
    assert root.attrib["role"] == "img"
    assert title.tag.endswith("title") and title.text == printable("n" * 200)
    assert text.tag.endswith("desc") and "stage 1: 4 x cycle + attention" in (text.text or "")
    assert any(word.startswith('A <b>title</b> & "quotes" ]]>') for word in words(svg))


def test_drawings_stand_beside_each_other_in_one_page() -> None:
    one, other = (archspec.draw("small-unet", patch_size=(n, n)).svg() for n in (16, 32))
    ids = [set(re.findall(r' id="(\w+)"', svg)) for svg in (one, other)]
    assert [len(found) for found in ids] == [2, 2] and not ids[0] & ids[1]
    style = one[one.index("<style>") : one.index("</style>")]
    rules = re.findall(r"^(?:<style>)?([^@{}]+)\{", style, re.MULTILINE)
    assert len(rules) > 20 and all(rule.startswith(".archspec-drawing") for rule in rules)
