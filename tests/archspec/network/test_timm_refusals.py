"""What is refused of a model of timm as an encoder, in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm

import archspec
from blocks.base import SpecError
from search.space.space import load_space

NAME = "test_resnet"
SMALL: dict[str, Any] = {
    "name": "small",
    "in_channels": 2,
    "num_classes": 3,
    "patch_size": [64, 64],
    "encoder": {"timm": NAME},
    "decoder": {"kind": "mlp", "width": 8},
}


def spec(decoder: dict[str, Any] | None = None, **encoder: Any) -> dict[str, Any]:
    return {**SMALL, "encoder": {"timm": NAME, **encoder}, "decoder": decoder or SMALL["decoder"]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name": (
        spec(timm="convnext_tinny"),
        f"encoder.timm: timm {timm.__version__} has no model 'convnext_tinny'; did you mean "
        "'convnext_tiny'?",
    ),
    "tag": (
        spec(timm="resnet18.tv"),
        "encoder.timm: timm's resnet18 has no weights with the tag 'tv'; allowed: a1_in1k, ",
    ),
    "hub": (spec(timm="hf-hub:someone/model"), "encoder.timm: string must match pattern"),
    "folder": (spec(timm="local-dir:/tmp"), "encoder.timm: string must match pattern"),
    "3-D": (
        spec() | {"patch_size": [32, 32, 32]},
        "encoder.timm: timm's models are 2-D, but the patch has 3 axes; give a patch_size of two ",
    ),
    "no features": (
        spec(timm="crossvit_9_240"),
        "encoder.timm: timm cannot make crossvit_9_240 with features_only=True: RuntimeError: ",
    ),
    "one size": (
        spec(timm="inception_v3"),
        "encoder.timm: inception_v3 does not run on the meta device at [1, 2, 64, 64]: ",
    ),
    "index": (
        spec(out_indices=[0, 5]),
        "encoder.out_indices: test_resnet has features 0 to 4; allowed: at most 4",
    ),
    "order": (
        spec(out_indices=[2, 1]),
        "encoder.out_indices: must be a list of features, from 0 on and fine to coarse, e.g. [0, ",
    ),
    "no weights": (
        spec(timm="test_mambaout", pretrained=True),
        "encoder.pretrained: timm has no weights of test_mambaout; use false, or give a file of ",
    ),
    "pretrained": (
        spec(pretrained=3),
        "encoder.pretrained: must be true, false, or a file of weights, but is 3",
    ),
    "a key mistyped": (
        SMALL | {"encoder": {"tim": NAME, "pretrained": False}},
        "encoder.tim: unknown key; allowed: timm, pretrained, out_indices; did you mean 'timm'?",
    ),
    "stages too": (
        spec(stages=[]),
        "encoder.stages: unknown key; allowed: timm, pretrained, out_indices",
    ),
    "heads": (
        spec({"kind": "sum"}, out_indices=[4]) | {"deep_supervision": {"heads": 3}},
        "deep_supervision.heads: 3 heads, but the decoder has features at 1 different grids",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(case: str) -> None:
    tree, want = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        archspec.plan(tree)
    message = str(caught.value).removeprefix("spec: ")
    assert message.startswith(want) and "\n" not in message


def test_a_space_that_starts_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Its trial would fail; told by what checks a space, of members and anchors alike."""
    file, gone = tmp_path / "space.yaml", tmp_path / "gone.pth"
    choice = {"choice": [False, "gone.pth"]}
    file.write_text(json.dumps(spec(pretrained=choice)))
    with pytest.raises(SpecError) as caught:
        load_space(file)
    line = f"{gone}: encoder.pretrained: no such file"
    assert str(caught.value) == line
    rival = tmp_path / "rival.yaml"
    rival.write_text(json.dumps(spec(pretrained="gone.pth")))
    search = {"anchors": [{"spec": str(rival)}]}
    tree = spec(decoder={"kind": "mlp", "width": {"choice": [8, 16]}})
    file.write_text(json.dumps({**tree, "search": search}))
    with pytest.raises(SpecError) as caught:
        load_space(file)
    assert str(caught.value).endswith(f"anchor spec: {line}")
