"""Specs of nnU-Net's plans build nnU-Net's networks: DNA's own, with the same weights."""

import random
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from archspec.network.build import build
from archspec.network.segnet import SegNet
from archspec.nnunet.arch_kwargs import read_architecture
from archspec.nnunet.from_plans import from_plans, spec_of_plans
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.errors import SpecError

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]

IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]
CLASSES = {
    "plain": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "residual": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}


def arch_kwargs(
    kind: str, kernels: list[Any], strides: list[Any], depths: list[int], **fields: Any
) -> dict[str, Any]:
    """Return what nnU-Net's planners write, for few channels."""
    ndim, stages = len(strides[0]), len(strides)
    convs = "n_conv_per_stage" if kind == "plain" else "n_blocks_per_stage"
    return {
        "n_stages": stages,
        "features_per_stage": [min(2 * 2**stage, 8) for stage in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
        "kernel_sizes": kernels,
        "strides": strides,
        convs: depths,
        "n_conv_per_stage_decoder": [2 if kind == "plain" else 1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **fields,
    }


def plans_of(kind: str, kwargs: dict[str, Any], patch: list[int]) -> dict[str, Any]:
    """Return plans with one configuration, as much of them as says what the network is."""
    architecture = {
        "network_class_name": CLASSES[kind],
        "arch_kwargs": kwargs,
        "_kw_requires_import": IMPORTED,
    }
    settings = {"patch_size": patch, "batch_size": 2, "architecture": architecture}
    return {
        "dataset_name": "Dataset901_Blobs",
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": settings},
    }


# Kernels, strides and blocks as nnU-Net 2.8.1 plans them for datasets of these shapes.
PLANNED = {
    "hippocampus": (
        plans_of(
            "plain",
            arch_kwargs("plain", [[3, 3, 3]] * 4, [[1, 1, 1], *[[2, 2, 2]] * 3], [2] * 4),
            [40, 56, 40],
        ),
        1,
    ),
    "thick slices": (
        plans_of(
            "plain",
            arch_kwargs(
                "plain",
                [[1, 3, 3], [1, 3, 3], *[[3, 3, 3]] * 4],
                [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
                [2] * 6,
            ),
            [14, 256, 224],
        ),
        1,
    ),
    "colour images": (
        plans_of(
            "plain",
            arch_kwargs("plain", [[3, 3]] * 8, [[1, 1], *[[2, 2]] * 7], [2] * 8),
            [512, 512],
        ),
        3,
    ),
    "ResEnc M, thick slices": (
        plans_of(
            "residual",
            arch_kwargs(
                "residual",
                [[1, 3, 3], *[[3, 3, 3]] * 5],
                [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
                [1, 3, 4, 6, 6, 6],
            ),
            [16, 64, 64],
        ),
        2,
    ),
}


def random_plans(seed: int) -> dict[str, Any]:
    """Return plans with every field drawn, within what planners and careful users write."""
    draw = random.Random(seed)
    kind, ndim = draw.choice(["plain", "residual"]), draw.choice([2, 3])
    stages = draw.randint(2, 4)

    def axes(values: tuple[int, ...]) -> Any:
        return [draw.choice(values) for _ in range(ndim)]

    strides = [[1] * ndim]
    while len(strides) < stages:
        strides.append(axes((1, 2, 2)))
        if strides[-1] == [1] * ndim:
            strides[-1][draw.randrange(ndim)] = 3
    kernels = [axes((1, 3, 3, 5)) if draw.random() < 0.8 else 3 for _ in range(stages)]
    depth = draw.randint(1, 3)
    many = draw.choice([depth, [draw.randint(1, 4) for _ in range(stages)]])
    kwargs = arch_kwargs(kind, kernels, strides, many)  # type: ignore[arg-type]
    kwargs["features_per_stage"] = [draw.randint(2, 5) for _ in range(stages)]
    kwargs["n_conv_per_stage_decoder"] = [draw.randint(1, 3) for _ in range(stages - 1)]
    kwargs["conv_bias"] = draw.choice([True, False])
    norm = draw.choice(["InstanceNorm", "BatchNorm", None])
    kwargs["norm_op"] = norm and f"torch.nn.{norm}{ndim}d"
    instance = [{"affine": True}, {"eps": 1e-5}, None]
    kwargs["norm_op_kwargs"] = draw.choice(instance) if norm == "InstanceNorm" else {"eps": 1e-5}
    if norm is None:
        kwargs["norm_op_kwargs"] = None
    kwargs["nonlin"] = f"torch.nn.{draw.choice(['LeakyReLU', 'ReLU', 'GELU', 'SiLU'])}"
    kwargs["nonlin_kwargs"] = draw.choice([None, {}])
    if draw.random() < 0.5:
        kwargs["dropout_op"] = f"torch.nn.modules.dropout.Dropout{ndim}d"
        kwargs["dropout_op_kwargs"] = {"p": draw.choice([0.0, 0.25, 0.5]), "inplace": False}
    total = [1] * ndim
    for stride in strides:
        total = [t * s for t, s in zip(total, stride, strict=True)]
    return plans_of(kind, kwargs, [2 * t for t in total])


def settings_of(plans: dict[str, Any]) -> dict[str, Any]:
    return dict(plans["configurations"]["3d_fullres"])


def official(plans: dict[str, Any], in_channels: int) -> nn.Module:
    """Return the network as stock nnU-Net builds it, without the start values."""
    architecture = deepcopy(settings_of(plans)["architecture"])
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        in_channels,
        3,
        allow_init=False,
        deep_supervision=True,
    )


def ours_of(plans: dict[str, Any], in_channels: int) -> tuple[ArchSpec, SegNet]:
    spec = spec_of_plans(plans, "3d_fullres", in_channels=in_channels, num_classes=3)
    net = build(spec)
    net.decoder.deep_supervision = True
    return spec, net


def ours_key(key: str, spec: ArchSpec) -> str:
    """Return our name of a parameter of DNA's."""
    stages = spec.encoder.stages
    decoder = re.fullmatch(r"decoder\.(\w+)\.(\d+)\.(.*)", key)
    if decoder is not None:
        part, level, rest = decoder[1], len(stages) - 2 - int(decoder[2]), decoder[3]
        if part == "seg_layers":
            return f"decoder.seg_layers.{level}.{'' if level else 'conv.'}{rest}"
        if part == "transpconvs":
            return f"decoder.ups.{level}.conv.{rest}"
        step = _step(rest, dropout=spec.decoder.dropout > 0)  # type: ignore[union-attr]
        return f"decoder.blocks.{level}.{step}"
    stem = re.fullmatch(r"encoder\.stem\.(convs\.0\..*)", key)
    if stem is not None:
        step = _step(stem[1], dropout=stages[0].downsample.dropout > 0)
        return f"stages.0.downsample.{step.removeprefix('0.')}"
    found = re.fullmatch(r"encoder\.stages\.(\d+)\.(.*)", key)
    assert found is not None, key
    index, rest = int(found[1]), found[2]
    stage, prefix = stages[index], f"stages.{index}."
    if rest.startswith("0.convs."):
        number, inner = re.fullmatch(r"0\.convs\.(\d+)\.(.*)", rest).groups()  # type: ignore[union-attr]
        count = int(number)
        if not stage.downsample.in_block:
            if count == 0:
                step = _step(f"convs.0.{inner}", dropout=stage.downsample.dropout > 0)
                return f"{prefix}downsample.{step.removeprefix('0.')}"
            count -= 1
        names = [("conv", "norm1"), ("mixer.0", "norm2")][count % 2]
        return f"{prefix}blocks.{count // 2}.{_in_block(inner, names)}"
    block, inner = re.fullmatch(r"blocks\.(\d+)\.(.*)", rest).groups()  # type: ignore[union-attr]
    prefix = f"{prefix}blocks.{block}."
    if inner.startswith("conv1."):
        return prefix + _in_block(inner.removeprefix("conv1."), ("conv", "norm1"))
    if inner.startswith("conv2."):
        return prefix + _in_block(inner.removeprefix("conv2."), ("mixer.0", "norm2"))
    number, inner = re.fullmatch(r"skip\.(\d+)\.(.*)", inner).groups()  # type: ignore[union-attr]
    return f"{prefix}shortcut.{_in_block(inner, (number, str(int(number) + 1)))}"


def _in_block(inner: str, names: tuple[str, str]) -> str:
    kind, _, rest = inner.partition(".")
    return f"{names[kind == 'norm']}.{rest}"


def _step(rest: str, *, dropout: bool) -> str:
    """Return `0.1.weight` of `convs.0.norm.weight`: convolution, dropout if any, norm."""
    number, kind, inner = re.fullmatch(r"convs\.(\d+)\.(\w+)\.(.*)", rest).groups()  # type: ignore[union-attr]
    return f"{number}.{0 if kind == 'conv' else 1 + dropout}.{inner}"


def check_equal(plans: dict[str, Any], in_channels: int) -> None:
    """Check parameters one by one, and all outputs in training, where dropout draws alike."""
    torch.manual_seed(7)
    theirs = official(plans, in_channels)
    spec, ours = ours_of(plans, in_channels)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weights = {ours_key(key, spec): value for key, value in theirs.named_parameters()}
    assert set(weights) == {key for key, _ in ours.named_parameters()}
    ours.load_state_dict({**ours.state_dict(), **weights})
    counts = [sum(p.numel() for p in net.parameters()) for net in (theirs, ours)]
    assert counts[0] == counts[1]
    x = torch.randn(1, in_channels, *settings_of(plans)["patch_size"])
    outputs = []
    for net in (theirs, ours):
        torch.manual_seed(3)
        with torch.no_grad():
            outputs.append(net(x))
    heads = len(spec.encoder.stages) - 1
    assert len(outputs[0]) == heads
    assert len(outputs[1]) == max(heads, 2)  # of one output nnU-Net would get no loss
    for want, found in zip(*outputs, strict=False):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", PLANNED)
def test_of_planners(case: str) -> None:
    check_equal(*PLANNED[case])


@pytest.mark.parametrize("seed", range(40))
def test_any_fields(seed: int) -> None:
    check_equal(random_plans(seed), 1 + seed % 2)


def test_random_plans_have_every_field_in_every_state() -> None:
    """What the seeds above draw: each kind, norm, bias, dropout, and odd counts of convolutions."""
    found = [settings_of(random_plans(seed))["architecture"] for seed in range(40)]
    for field in ("norm_op", "conv_bias", "dropout_op", "nonlin"):
        assert len({str(one["arch_kwargs"][field]) for one in found}) >= 2, field
    specs = [ours_of(random_plans(seed), 1)[0] for seed in range(40)]
    stages = [stage for spec in specs for stage in spec.encoder.stages]
    assert any(stage.depth == 0 for stage in stages)
    assert any(stage.downsample.sparse for stage in stages)
    assert {len(spec.patch_size) for spec in specs} == {2, 3}
    assert {spec.encoder.stages[0].block.kind for spec in specs} == {"plain", "basic"}


def test_plans_from_before_there_were_architectures() -> None:
    """nnU-Net 2.0 to 2.4 wrote the fields of one of two networks into the configuration."""
    plans, _ = PLANNED["hippocampus"]
    kwargs = settings_of(plans)["architecture"]["arch_kwargs"]
    old = {
        "patch_size": [40, 56, 40],
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 2,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3,
        "conv_kernel_sizes": kwargs["kernel_sizes"],
        "pool_op_kernel_sizes": kwargs["strides"],
    }
    found = spec_of_plans(
        {**plans, "configurations": {"3d_fullres": old}},
        "3d_fullres",
        in_channels=1,
        num_classes=3,
    )
    assert found == ours_of(plans, 1)[0]
    del old["conv_kernel_sizes"]
    with pytest.raises(SpecError, match="neither architecture nor conv_kernel_sizes"):
        read_architecture(old)


def test_of_a_dataset(preprocessed: Path) -> None:
    spec = from_plans(901)
    assert (spec.in_channels, spec.num_classes, spec.init) == (1, 3, "nnunet")
    assert spec.patch_size == (16, 16, 16)
    assert spec.training == load("unet").training
    assert "Dataset901_Blobs (nnUNetPlans, 3d_fullres)" in spec.title
    flat = from_plans("Dataset901_Blobs", configuration="2d")
    assert flat.patch_size == (16, 24)
    cascade = from_plans(901, configuration="3d_cascade_fullres")
    assert cascade.in_channels == 3, "the image, and a channel for each label of the first stage"


def test_the_file_is_the_spec(cli: Cli, preprocessed: Path, tmp_path: Path) -> None:
    path = tmp_path / "nnunet.yaml"
    assert cli("from-plans", "901", "-o", path) == (0, f"wrote {path}\n", "")
    text = path.read_text(encoding="utf-8")
    assert cli("from-plans", "901") == (0, text, "")
    assert load(path) == from_plans(901)
    assert cli("validate", path)[0] == 0


def test_the_verb_refuses(
    refused: Refused, cli: Cli, preprocessed: Path, tmp_path: Path, rewrite: Any
) -> None:
    path = tmp_path / "nnunet.yaml"
    path.write_text("mine", encoding="utf-8")
    refused(("from-plans", "901", "-o", path), f"{path}: exists already", "--out", "--force")
    assert path.read_text(encoding="utf-8") == "mine"
    refused(("from-plans", "901", "-o", tmp_path / "no" / "x.yaml"), "does not exist")
    refused(("from-plans", "902"), "902")
    refused(("from-plans", "901", "--plans", "nnUNetResEncUNetMPlans"), "no such plans file")
    plans = preprocessed / "nnUNetPlans.json"

    def elu(tree: dict[str, Any]) -> None:
        settings = tree["configurations"]["3d_fullres"]
        settings["architecture"]["arch_kwargs"]["nonlin"] = "torch.nn.ELU"

    rewrite(plans, elu)
    refused(
        ("from-plans", "901", "-o", path, "--force"),
        f"archspec: {plans}: arch_kwargs.nonlin: 'torch.nn.ELU'",
    )
    assert path.read_text(encoding="utf-8") == "mine"
    assert cli("from-plans", "901", "--configuration", "2d", "-o", path, "--force")[0] == 0
    assert load(path).patch_size == (16, 24)
