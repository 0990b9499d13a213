"""All mistakes of a file at once: each told once, where it stands, with the way out if known."""

from collections.abc import Callable
from pathlib import Path

import pytest

import archspec
from archspec.network.input_sizes import InputSizes
from archspec.network.resolve import resolve
from archspec.spec.load import load
from blocks.errors import SpecError

Cli = Callable[..., tuple[int, str, str]]

NET = """\
name: net
patch_size: [32, 32, 32]
encoder:
  defaults: {block: {kind: residual, norm: layer}}
  stages:
    - {width: 24, mixer: {kind: conv}}
    - {width: 48, mixer: {kind: attention, num_heads: 4}}
decoder: {kind: concat}
training: {lr: 1e-3}
"""


def problems_of(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    """Return the lines about the file with these changes, without its folder."""
    text = NET
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "net.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        resolve(path, InputSizes(exact=True))
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    return [line.removeprefix(f"{tmp_path}/") for line in lines]


FOUR = (
    ("{width: 24, mixer", "{width: wide, mixer"),
    ("num_heads", "heads"),
    ("kind: concat}", "kind: concat, deep_supervision: {heads: 2}}"),
    ("lr: 1e-3", "warmup: 5"),
)


def test_four_mistakes_are_four_lines(cli: Cli, tmp_path: Path) -> None:
    lines = problems_of(tmp_path, *FOUR)
    assert [line.split(";")[0] for line in lines] == [
        "net.yaml:6:8  encoder.stages.0.width: must be a valid integer, but is 'wide'",
        "net.yaml:7:44  encoder.stages.1.mixer.heads: unknown key",
        "net.yaml:8:25  decoder.deep_supervision: unknown key",
        "net.yaml:9:12  training.warmup: must be less than 1, but is 5",
    ]
    path = tmp_path / "net.yaml"
    for verb in (("validate", path), ("describe", path), ("describe", "small-unet", path)):
        code, out, err = cli(*verb)
        assert (code, out) == (2, "")
        assert err.splitlines() == [f"archspec: {tmp_path}/{line}" for line in lines]
    with pytest.raises(SpecError) as caught:
        archspec.load(path)
    found = [(one.where and one.where.line, one.field) for one in caught.value.problems]
    assert found == [
        (6, "encoder.stages.0.width"),
        (7, "encoder.stages.1.mixer.heads"),
        (8, "decoder.deep_supervision"),
        (9, "training.warmup"),
    ]


WAYS_OUT = {
    "a field by the name that others give it": (
        ("num_heads: 4", "heads: 4"),
        "did you mean 'num_heads'?",
    ),
    "a field of the top level": (
        ("kind: concat}", "kind: concat, deep_supervision: {heads: 2}}"),
        "it stands at the top level: deep_supervision",
    ),
    "a field of a node below": (("training: {lr", "lr: 1\ntraining: {lr"), "it is a field of"),
    "a field of the stage, told once in the defaults": (
        ("norm: layer}}", "norm: layer}, ffn: {kind: none, width: 8}}"),
        "encoder.defaults.ffn.width: unknown key; allowed: kind; it is a field of the stage",
    ),
    "a field of another kind": (("num_heads: 4", "d_state: 8"), "only kind mamba and tom has it"),
    "a count for a share": (("lr: 1e-3", "warmup: 5"), "it is a share of the steps, e.g. 0.05"),
    "heads that do not divide": (
        ("num_heads: 4", "num_heads: 5"),
        "nearest: num_heads 4 or 6, or width 45 or 50",
    ),
    "heads that leave no room for RoPE": (
        ("num_heads: 4", "num_heads: 16, rope: axial"),
        "nearest: num_heads 8, or width 96, or rope: none",
    ),
    "heads that neither divide nor leave room": (
        ("num_heads: 4", "num_heads: 9, rope: axial"),
        "nearest: num_heads 8, or width 54",
    ),
}


@pytest.mark.parametrize("case", WAYS_OUT)
def test_the_way_out_is_said(case: str, tmp_path: Path) -> None:
    change, want = WAYS_OUT[case]
    (line,) = problems_of(tmp_path, change)
    assert want in line


@pytest.mark.parametrize(
    ("old", "new"),
    [("num_heads: 5", "num_heads: 4"), ("width: 48", "width: 45"), ("width: 48", "width: 50")],
)
def test_what_is_near_fits(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(NET.replace("num_heads: 4", "num_heads: 5").replace(old, new), "utf-8")
    assert resolve(path).skips


def test_a_mistake_in_the_defaults_is_told_once(tmp_path: Path) -> None:
    lines = problems_of(tmp_path, ("norm: layer", "norm: layr"))
    assert len(lines) == 1 and lines[0].startswith("net.yaml:4:38  encoder.defaults.block.norm: ")


def test_a_misspelt_key_is_not_missing_too(tmp_path: Path) -> None:
    lines = problems_of(tmp_path, ("width: 24", "widht: 24"), ("width: 48, ", ""))
    assert [line.split(";")[0] for line in lines] == [
        "net.yaml:6:8  encoder.stages.0.widht: unknown key",
        "net.yaml:7:7  encoder.stages.1.width: missing",
    ]


def test_text_and_values_are_told_together(tmp_path: Path) -> None:
    changes = (("training: {lr: 1e-3}", "name: other\nnaem: third"), ("width: 24", "width: !x 1"))
    assert [line.split(";")[0] for line in problems_of(tmp_path, *changes)] == [
        "net.yaml:6:15  encoder.stages.0.width: tag '!x' is not used in specs",
        "net.yaml:9:1  name: duplicate key",
        "net.yaml:10:1  naem: unknown key",
    ]


def test_sizes_are_told_beside_what_no_shape_depends_on(tmp_path: Path) -> None:
    heads, rate = ("num_heads: 4", "num_heads: 5"), ("lr: 1e-3", "lr: fast")
    wrong_heads = "net.yaml:7:44  encoder.stages.1.mixer.num_heads: 5 must divide the width 48"
    lines = [line.split(";")[0] for line in problems_of(tmp_path, heads, rate)]
    assert lines == [
        wrong_heads,
        "net.yaml:9:12  training.lr: must be a valid number, but is 'fast'",
    ]
    first = ("width: 24", "width: wide")  # the second stage's input is not known then
    assert len(problems_of(tmp_path, heads, first)) == 1
    decoder = ("kind: concat}", "kind: sum, head: none}")
    lines = [line.split(";")[0] for line in problems_of(tmp_path, heads, decoder)]
    assert lines[0] == wrong_heads and len(lines) == 2 and lines[1].startswith("net.yaml:8:")


def test_several_stages_that_do_not_fit(tmp_path: Path) -> None:
    lines = problems_of(
        tmp_path,
        ("{width: 24, mixer: {kind: conv}}", "{width: 24, mixer: {kind: attention, num_heads: 7}}"),
        ("num_heads: 4", "num_heads: 5"),
        ("kind: concat}", "kind: concat}\ndeep_supervision: {heads: 9}"),
    )
    assert [line.split(": ")[0] for line in lines] == [
        "net.yaml:6:44  encoder.stages.0.mixer.num_heads",
        "net.yaml:7:44  encoder.stages.1.mixer.num_heads",
        "net.yaml:9:20  deep_supervision.heads",
    ]


def test_a_grid_that_does_not_divide_is_one_mistake(tmp_path: Path) -> None:
    lines = problems_of(tmp_path, ("[32, 32, 32]", "[32, 32, 34]"))
    assert len(lines) == 1 and "must divide by [2, 2, 2]" in lines[0]


def test_several_overrides(tmp_path: Path) -> None:
    overrides = ("encoder.stages.7.width=8", "width", "name=[1")
    with pytest.raises(SpecError) as caught:
        load("small-unet", overrides=overrides)
    places = [one.where for one in caught.value.problems]
    assert [(one and one.kind, one and one.name) for one in places] == [
        ("override", text) for text in overrides
    ]
