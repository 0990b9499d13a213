"""A space made of a spec: what a path opens, and that the spec itself comes first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from blocks.base import SpecError
from blocks.registry import slots
from search.space.space import Space

SPEC: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": 4, "mixer": {"kind": "conv", "kernel_size": 5}},
            {"width": 4, "depth": 2, "mixer": {"kind": "attention", "num_heads": 2}},
        ]
    },
    "decoder": {"kind": "sum"},
}


def test_a_path_opens_a_component_to_its_slot_and_what_stands_there_is_first() -> None:
    space = Space.from_spec(SPEC, open=["encoder.stages.*.mixer", "decoder"])
    first, second, decoder = space.holes()
    assert first.name == "encoder.stages.0.mixer" and first.options[0] == "conv"
    assert second.options[0] == "attention" and decoder.options[0] == "sum"
    for hole in (first, second):
        assert set(hole.options) == set(slots()["mixer"].kinds()) - {"cycle"}
    (anchor,) = space.anchors()
    spec = space.suggest(optuna.trial.FixedTrial(anchor))
    assert arch_hash(spec) == arch_hash(load(SPEC)), "fields of its own stay"
    other = space.suggest(optuna.trial.FixedTrial({**anchor, first.name: "identity"}))
    assert [stage.mixer.kind for stage in other.encoder.stages] == ["identity", "attention"]


def test_numbers_and_switches_have_neighbours() -> None:
    paths = ["encoder.stages.*.width", "encoder.stages[1].depth"]
    opened = Space.from_spec(SPEC, open=[*paths, "encoder.stages.1.mixer.qkv_bias"])
    options = {hole.name: hole.options for hole in opened.holes()}
    assert options["encoder.stages.0.width"] == (4, 2, 8)
    assert options["encoder.stages.1.depth"] == (2, 1, 4)
    bias = load(SPEC).encoder.stages[1].mixer.qkv_bias  # type: ignore[union-attr]
    assert options["encoder.stages.1.mixer.qkv_bias"] == (bias, not bias)


def test_a_mapping_gives_holes_and_settings_are_those_of_the_section(
    tmp_path: Path, fakes: SimpleNamespace
) -> None:
    width = {"choice": [4, 6], "name": "width"}
    settings = {"steps": 9, "anchors": [{"width": 6}]}
    space = Space.from_spec(SPEC, open={"encoder.stages.*.width": width}, settings=settings)
    assert [hole.name for hole in space.holes()] == ["width"] and space.settings.steps == 9
    assert space.anchors() == [{"width": 6}]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    widths = {space.suggest(study.ask()).encoder.stages[0].width for _ in range(9)}
    assert widths == {4, 6}, "any study draws from it"


@pytest.mark.parametrize(
    ("opened", "told"),
    [
        (["encoder.stages.9.mixer"], "9 is not an index of a list of 2"),
        (["encoder.steges.*.mixer"], "no such node"),
        (["name"], "nothing to open it to is known"),
        (["encoder.stages"], "nothing to open it to is known"),
        ([], "no holes"),
        ({"decoder": 3}, "must be a hole"),
        ({"decoder": {"choice": [{"kind": "sun"}]}}, "'sun' is not a decoder"),
    ],
)
def test_what_cannot_be_opened_is_refused(opened: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told) as error:
        Space.from_spec(SPEC, open=opened)
    assert "\n" not in str(error.value)
