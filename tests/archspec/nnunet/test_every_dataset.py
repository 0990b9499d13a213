"""Every bundled network goes into datasets as nnU-Net plans them, without further options."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec.nnunet.export import export_nnunet
from blocks.base import SpecError

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]

PLANNED = {
    "small volumes": ("3d_fullres", [40, 56, 40], [1.0, 1.0, 1.0]),
    "thick slices": ("3d_fullres", [8, 320, 256], [8.0, 0.5, 0.5]),
    "cine": ("3d_fullres", [16, 256, 224], [5.0, 1.5625, 1.5625]),
    "photographs": ("2d", [512, 512], [1.0, 1.0]),
    "slices": ("2d", [56, 40], [1.0, 1.0]),
}
"""Configuration, patch (voxels) and spacing (mm) that nnU-Net plans for such data."""

THREE_AXES = {"primus-s", "segmaformer-acdc", "segmaformer-synapse"}
TWO_AXES = {"timm-convnext-tiny"}


@pytest.mark.parametrize(
    "fitted",
    [
        pytest.param(False, id="as it is"),
        pytest.param(True, id="stages from dataset", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("data", PLANNED)
def test_export(
    some_spec: str, data: str, fitted: bool, preprocessed: Path, rewrite: Rewrite
) -> None:
    configuration, patch, spacing = PLANNED[data]
    if some_spec in THREE_AXES and configuration == "2d":
        pytest.skip("it has three axes")
    rewrite(
        preprocessed / "nnUNetPlans.json",
        lambda plans: plans["configurations"][configuration].update(
            patch_size=patch, spacing=spacing
        ),
    )
    if some_spec in TWO_AXES and len(patch) == 3:
        with pytest.raises(SpecError, match="models are 2-D, but the patch has 3 axes") as told:
            export_nnunet(some_spec, 901, configuration=configuration, stages_from_dataset=fitted)
        assert "\n" not in str(told.value)
        return
    exported = export_nnunet(
        some_spec, 901, configuration=configuration, stages_from_dataset=fitted
    )
    plans = json.loads(exported.path.read_text())
    written = plans["configurations"][configuration]
    assert written["patch_size"] == patch
    assert len(written["architecture"]["arch_kwargs"]["strides"][0]) == len(patch)
    assert all("\n" not in note for note in exported.notes)
