"""Fields of plans that no spec can say are refused by name, all of them at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from archspec.nnunet.arch_kwargs import read_architecture
from blocks.errors import SpecError


@pytest.fixture
def architecture(preprocessed: Path) -> dict[str, Any]:
    """Return what stands in plans for a plain U-Net of two stages, for tests to change."""
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    return dict(plans["configurations"]["3d_fullres"]["architecture"])


def refusal(architecture: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        read_architecture({"patch_size": [16, 16, 16], "architecture": architecture})
    return str(caught.value)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "eps": (
        {"norm_op_kwargs": {"eps": 1e-3, "affine": True}},
        "norm_op_kwargs.eps: 0.001 cannot be said in a spec; allowed: 1e-05",
    ),
    "statistics": (
        {"norm_op_kwargs": {"track_running_stats": True}},
        "norm_op_kwargs.track_running_stats: true cannot be said in a spec; allowed: false",
    ),
    "argument": (
        {"norm_op_kwargs": {"dtype": "half"}},
        "norm_op_kwargs.dtype: cannot be said in a spec; allowed: eps, affine, "
        "track_running_stats, momentum",
    ),
    "norm": (
        {"norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"},
        "norm_op: 'torch.nn.modules.instancenorm.InstanceNorm2d' cannot be said in a spec; "
        "allowed: null, torch.nn.InstanceNorm3d, torch.nn.BatchNorm3d",
    ),
    "activation": (
        {"nonlin": "torch.nn.ELU"},
        "nonlin: 'torch.nn.ELU' cannot be said in a spec; allowed: torch.nn.LeakyReLU, "
        "torch.nn.ReLU, torch.nn.GELU, torch.nn.SiLU",
    ),
    "no activation": ({"nonlin": None}, "nonlin: null cannot be said in a spec; allowed: torch.nn"),
    "slope": (
        {"nonlin_kwargs": {"negative_slope": 0.2}},
        "nonlin_kwargs.negative_slope: 0.2 cannot be said in a spec; allowed: 0.01",
    ),
    "dropout": (
        {"dropout_op": "torch.nn.Dropout", "dropout_op_kwargs": {"p": 0.1}},
        "dropout_op: 'torch.nn.Dropout' cannot be said in a spec; allowed: null, torch.nn.Dropout",
    ),
    "rate": (
        {"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 1}},
        "dropout_op_kwargs.p: must be at least 0 and below 1, but is 1",
    ),
    "convolution": (
        {"conv_op": "torch.nn.modules.conv.Conv2d"},
        "conv_op: 'torch.nn.modules.conv.Conv2d' cannot be said in a spec; allowed: "
        "torch.nn.Conv3d",
    ),
    "first stride": (
        {"strides": [2, 2]},
        "strides.0: must be 1 on every axis, for the first output has the patch's grid, but is",
    ),
    "kept grid": (
        {"strides": [[1, 1, 1], [1, 1, 1]]},
        "strides.1: [1, 1, 1] keeps the grid, but each output has a coarser one",
    ),
    "even kernel": (
        {"kernel_sizes": [3, [1, 2, 2]]},
        "kernel_sizes.1: [1, 2, 2] must be odd",
    ),
    "axes": (
        {"kernel_sizes": [3, [3, 3]]},
        "kernel_sizes.1: must be 3 positive integers, one per axis of the patch, but is [3, 3]",
    ),
    "length": ({"n_conv_per_stage": [2]}, "n_conv_per_stage: has 1 entries, but must have 2"),
    "count": (
        {"n_conv_per_stage_decoder": [0]},
        "n_conv_per_stage_decoder.0: must be a positive integer, but is 0",
    ),
    "stages": ({"n_stages": 1}, "n_stages: must be an integer of at least 2, but is 1"),
    "order": (
        {"nonlin_first": True},
        "nonlin_first: true cannot be said in a spec; allowed: false",
    ),
    "unknown": (
        {"squeeze_excitation": True},
        "squeeze_excitation: is not a field that PlainConvUNet",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_spec_can_say(architecture: dict[str, Any], case: str) -> None:
    fields, message = REFUSED[case]
    architecture["arch_kwargs"] |= fields
    assert refusal(architecture).startswith(f"arch_kwargs.{message}")


def test_every_field_in_the_way_is_named(architecture: dict[str, Any]) -> None:
    architecture["arch_kwargs"] |= {"nonlin": "torch.nn.ELU", "strides": 2, "conv_bias": "no"}
    del architecture["arch_kwargs"]["n_conv_per_stage"]
    lines = refusal(architecture).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"arch_kwargs.{field}" for field in ("strides.0", "n_conv_per_stage", "conv_bias", "nonlin")
    ]


def test_other_networks(architecture: dict[str, Any]) -> None:
    architecture["network_class_name"] = "archspec.nnunet.ArchSpecNet"
    assert refusal(architecture) == (
        "architecture.network_class_name: 'archspec.nnunet.ArchSpecNet' is not a network that "
        "nnU-Net plans; allowed: PlainConvUNet or ResidualEncoderUNet"
    )
    architecture["network_class_name"] = "ResidualEncoderUNet"
    kwargs = architecture["arch_kwargs"]
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    kwargs |= {"bottleneck_channels": 4, "stem_channels": 3}
    assert refusal(architecture).splitlines() == [
        "arch_kwargs.bottleneck_channels: 4 cannot be said in a spec; allowed: null",
        "arch_kwargs.stem_channels: 3 cannot be said in a spec; allowed: null, 32",
    ]


def test_what_is_no_architecture(architecture: dict[str, Any]) -> None:
    assert refusal({}).startswith("architecture: has no network_class_name; these are not nnU-Net")
    architecture["arch_kwargs"] = [1]
    assert refusal(architecture).startswith("arch_kwargs: must be a mapping, but is [1]")


def test_what_changes_nothing_is_taken(architecture: dict[str, Any]) -> None:
    """Left out, or written in full, it is one network."""
    settings = {"patch_size": [16, 16, 16], "architecture": architecture}
    found = read_architecture(settings)
    kwargs = architecture["arch_kwargs"]
    for field in ("dropout_op", "dropout_op_kwargs", "nonlin_kwargs"):
        del kwargs[field]
    assert read_architecture(settings) == found
    kwargs["nonlin_kwargs"] = {"negative_slope": 0.01, "inplace": False}
    kwargs["norm_op_kwargs"] |= {"momentum": 0.5, "track_running_stats": False}
    kwargs |= {"deep_supervision": False, "nonlin_first": False, "kernel_sizes": 3}
    assert read_architecture(settings) == found
