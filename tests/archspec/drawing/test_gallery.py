"""docs/gallery.md and its drawings: current, and good to look at; `make gallery` writes them."""

import os
from functools import cache
from pathlib import Path

import pytest

import archspec
from archspec.costs.flops import cost_plan
from archspec.drawing.content import content_of
from archspec.drawing.draw import draw_plan
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.bundled import bundled
from archspec.spec.find import list_specs
from tests.archspec.drawing.picture import faults, words

DOCS = Path(__file__).parents[3] / "docs"
FOLDER = DOCS / "gallery"
WRITES = os.environ.get("ARCHSPEC_GOLDEN") == "write"
INTRODUCTION = """\
# Gallery

Every bundled network as `archspec draw NAME -o NAME.svg` draws it, at the sizes of its spec; any
YAML file is drawn alike, and `archspec.draw` does it from Python. Shares are of the FLOPs of one
forward pass, counted as [costs](costs.md) says. A stripe in a stage stands for a block, its
colour for the mixer that the heading names; the number beside a stage is its place in
`encoder.stages`. `make gallery` makes this page.
"""


@cache
def planned(name: str) -> Plan:
    return resolve(name)


def page() -> str:
    """Return the text of the page."""
    parts = [
        f"\n## {name}\n\n![{name}: {bundled(name).tree['title']}](gallery/{name}.svg)\n"
        for name in list_specs()
    ]
    return "".join([INTRODUCTION, *parts])


def test_the_page_shows_every_bundled_network() -> None:
    if WRITES:
        FOLDER.mkdir(exist_ok=True)
        for file in FOLDER.glob("*.svg"):
            file.unlink()
        (DOCS / "gallery.md").write_text(page(), encoding="utf-8")
    else:
        assert sorted(file.name for file in FOLDER.iterdir()) == sorted(
            f"{name}.svg" for name in list_specs()
        )
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", list_specs())
def test_a_drawing_is_current_and_nothing_in_it_overlaps(name: str) -> None:
    svg, file = draw_plan(planned(name)).svg(), FOLDER / f"{name}.svg"
    if WRITES:
        file.write_text(svg, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == svg
    assert not faults(svg)
    assert not [word for word in words(svg) if word.endswith("...")]


def test_the_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 400_000


def test_a_library_s_network_is_one_box() -> None:
    found = content_of(planned("segresnet"), cost_plan(planned("segresnet")))
    (level,), (head,), (inp,) = found.levels, found.heads, found.rows
    assert (level.tile.heading, level.tile.grid) == ("SegResNet", "from monai")
    assert (level.tile.share, level.tile.note) == (1, "100% of FLOPs")
    assert (head.tile.heading, inp.heading, found.decoder) == ("output", "input", None)


def test_a_model_of_timm_is_a_panel_of_its_skips() -> None:
    found = content_of(planned("timm-convnext-tiny"), cost_plan(planned("timm-convnext-tiny")))
    assert found.encoder is not None and found.decoder is not None
    assert found.encoder.heading == "convnext_tiny of timm"
    assert found.encoder.share + found.decoder.share == pytest.approx(1)
    assert [(tile.heading, tile.grid) for tile in found.rows[1:3]] == [
        ("width 96", "64 x 64"),
        ("width 192", "32 x 32"),
    ]
    assert [skip.row for skip in found.skips] == [1, 2, 3, 4]


def test_labels_of_skips_stand_between_the_panels() -> None:
    spec = {
        "name": "two-panels",
        "patch_size": [64, 64],
        "encoder": {"timm": "resnet18"},
        "decoder": {"kind": "concat", "fue": True},
    }
    svg = archspec.draw(spec).svg()
    assert "FUE, residual unit" in words(svg) and not faults(svg)
