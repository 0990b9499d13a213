"""A space at the sizes its settings give: another patch, none that is padded, stages that fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.spec.hashing import trial_hash
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.dry_run import dry_run
from search.space.space import Space, load_space

Cli = Callable[..., tuple[int, str, str]]

SIZES = InputSizes(
    in_channels=1, num_classes=2, patch_size=(8, 40, 40), spacing=(8.0, 0.5, 0.5), exact=False
)
"""Thick slices: the first two halvings leave D alone, and a fourth has no axis left."""

TREE: dict[str, Any] = {
    "name": "deep",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": 4, "mixer": {"kind": "conv"}},
            {"width": 8, "mixer": {"kind": "conv"}},
            {"width": 8, "mixer": {"kind": "conv"}},
            {
                "width": {"choice": [8, 12]},
                "mixer": {"choice": [{"kind": "conv"}, {"kind": "mamba"}]},
            },
        ]
    },
    "decoder": {"kind": "sum"},
    "search": {"anchors": [{}, {"spec": "small-unet"}]},
}
HOLES = ["encoder.stages.3.width", "encoder.stages.3.mixer"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep.yaml"
    path.write_text(dump(TREE), encoding="utf-8")
    return path


@pytest.fixture
def load(file: Path) -> Callable[..., Space]:
    def loaded(*settings: str) -> Space:
        return load_space(file, overrides=tuple(f"search.{text}" for text in settings))

    return loaded


def trial(width: int, mixer: str) -> FixedTrial:
    return FixedTrial(dict(zip(HOLES, (width, mixer), strict=True)))


def test_the_settings_patch_wins(load: Callable[..., Space]) -> None:
    planned = load("patch_size=[16,32,32]").draw(trial(8, "conv"), SIZES)
    assert (planned.patch_size, planned.in_channels) == ((16, 32, 32), 1)
    assert load().draw(trial(8, "conv"), SIZES).padded_size == (16, 48, 48)


def test_exact_makes_a_network_that_pads_invalid(load: Callable[..., Space]) -> None:
    space = load("patch_size=exact")
    with pytest.raises(SpecError, match=r"grid \[1, 5, 5\] must divide by \[2, 2, 2\]"):
        space.draw(trial(8, "conv"), SIZES)
    whole = InputSizes(patch_size=(16, 32, 32))
    assert space.draw(trial(8, "conv"), whole).padded_size == (16, 32, 32)


def test_a_space_that_only_pads_says_what_helps(cli: Cli, file: Path) -> None:
    line = ("search", file, "--dry-run", "--patch", "exact", "-s", "patch_size=[8,40,40]")
    code, _, err = cli(*line)
    assert code == 2 and "200 draws gave no valid network; " in err and err.count("\n") == 1
    assert "must divide by [2, 2, 2]" in err and err.endswith(
        "; or give --stages-from-dataset, or another --patch\n"
    )


@pytest.mark.parametrize("patch", ["[16]", "[16,0,16]", "some", "16"])
def test_a_wrong_patch_is_one_line(load: Callable[..., Space], patch: str) -> None:
    with pytest.raises(SpecError, match=r"search.patch_size: must be 2 or 3 sizes") as told:
        load(f"patch_size={patch}")
    assert "\n" not in str(told.value)


def test_stages_are_fitted_before_anything_else(load: Callable[..., Space]) -> None:
    """Match, limits and hash are those of the fitted network; holes keep their names."""
    space = load("stages_from_dataset=true")
    drawn = trial(8, "conv")
    planned = space.draw(drawn, SIZES)
    strides = [stage.downsample.strides(3) for stage in planned.spec.encoder.stages]
    assert strides == [(1, 2, 2), (1, 2, 2), (1, 2, 2)] and planned.padded_size == (8, 40, 40)
    assert [hole.name for hole in space.holes()] == HOLES and drawn.params.keys() == set(HOLES)
    wider = space.draw(trial(12, "conv"), SIZES).spec
    assert trial_hash(planned.spec) == trial_hash(wider), "they differ in what was dropped"
    other = space.draw(trial(12, "mamba"), SIZES).spec
    assert [stage.mixer.kind for stage in other.encoder.stages] == ["conv"] * 3 + ["mamba"]
    matched = load("stages_from_dataset=true", "match={macs: 2e6, multiple: 1}")
    assert cost_plan(matched.draw(drawn, SIZES)).macs == pytest.approx(2e6, rel=0.03)


def test_an_anchor_beside_the_space_is_fitted_too(load: Callable[..., Space]) -> None:
    anchor = FixedTrial({})
    anchor.set_user_attr("anchor_spec", "small-unet")
    fine = InputSizes(patch_size=(16, 64, 64), spacing=(4.0, 1.0, 1.0))
    strides = [
        [
            stage.downsample.strides(3)
            for stage in load(*given).draw(anchor, fine).spec.encoder.stages
        ]
        for given in ((), ("stages_from_dataset=true",))
    ]
    assert strides[0][1] == (2, 2, 2) and strides[1][1] == (1, 2, 2)


def test_a_dry_run_says_what_was_fitted(load: Callable[..., Space]) -> None:
    found = dry_run(load("stages_from_dataset=true"), SIZES, seconds_per_step=1)
    page = " ".join(found.text().split())
    assert "stage 3 dropped, where no axis is left to stride" in page
    assert "stage 3 kept at stride 1, for no earlier one has its mixer and block" in page
    notes = [one["fitted"] for one in found.to_json()["samples"]]
    assert all(note.startswith("`stages_from_dataset`: spacing 8 x 0.5 x 0.5 mm") for note in notes)
    assert max(map(len, found.text().splitlines())) <= 80
    assert [
        one["fitted"] for one in dry_run(load(), SIZES, seconds_per_step=1).to_json()["samples"]
    ] == [None] * 4


def test_the_command_line_sets_them(cli: Cli, file: Path) -> None:
    line = ("search", file, "--dry-run", "--seconds-per-step", 1, "--device", "cpu")
    code, out, _ = cli(*line, "--patch", "8,32,32", "--batch", 3, "--stages-from-dataset")
    assert code == 0 and "input 3 x 1 x 8 x 32 x 32" in out and "--stages-from-dataset: " in out
    for words, told in (
        (("--patch", "8,x,32"), "--patch 8,x,32: must be sizes with commas"),
        (("--patch", "0,32,32"), "--patch [0, 32, 32]: must be 2 or 3 sizes"),
        (("--batch", 0), "--batch: must be at least 1"),
    ):
        code, _, err = cli(*line, *words)
        assert code == 2 and told in err and err.count("\n") == 1


def test_validate_checks_every_member_at_a_patch(cli: Cli, file: Path) -> None:
    code, out, _ = cli("validate", file, "--patch", "8,40,40", "--batch", 5)
    assert code == 0
    assert "every member is a network at [8, 40, 40]\n  trained in batches of 5\n" in out
    code, _, err = cli("validate", file, "--patch", "exact", "-s", "patch_size=[8,40,40]")
    assert code == 2 and "must divide" in err and json.dumps([8, 40, 40]) in err
