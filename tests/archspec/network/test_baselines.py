"""nnU-Net's networks: dynamic_network_architectures' own classes, with the same weights."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

import archspec
from archspec import plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan

WIDTHS, DEPTHS = (4, 6, 8, 8), (1, 3, 2, 1)
CASES = {
    "3d": ((16, 8, 24), (1, 2, 2, 2)),
    "2d": ((16, 24), (1, 2, 2, 2)),
    "3d-anisotropic": ((3, 16, 24), (1, (1, 2, 2), (1, 2, 2), (3, 2, 1))),
    "2d-anisotropic": ((16, 24), (1, (1, 2), 2, (2, 1))),
}
SPECS = ["unet", "resenc-unet"]


def official(planned: Plan) -> nn.Module:
    """Return DNA's network for the plan, with the arguments that nnU-Net's planners give it."""
    stages = planned.stages
    ndim = len(planned.patch_size)
    plain = planned.spec.name == "unet"
    sizes: dict[str, Any] = {
        "input_channels": planned.in_channels,
        "n_stages": len(stages),
        "features_per_stage": [stage.out.channels for stage in stages],
        "conv_op": nn.Conv3d if ndim == 3 else nn.Conv2d,
        "kernel_sizes": 3,
        "strides": [stage.spec.downsample.strides(ndim) for stage in stages],
        "num_classes": planned.num_classes,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }
    if plain:
        return PlainConvUNet(**sizes, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
    return ResidualEncoderUNet(
        **sizes,
        n_blocks_per_stage=[stage.spec.depth for stage in stages],
        n_conv_per_stage_decoder=1,
    )


def renamed(key: str, *, num_levels: int, with_pool: Sequence[bool]) -> str:
    """Return our key; `with_pool` says in which stages the shortcut shrinks."""
    level = re.match(r"decoder\.\w+\.(\d+)", key)
    if level is not None:
        ours = f"{num_levels - 1 - int(level[1])}"
        rules = [
            (r"decoder\.transpconvs\.\d+\.(.*)", rf"decoder.ups.{ours}.conv.\1"),
            (r"decoder\.stages\.\d+\.convs\.(\d+)\.conv\.(.*)", rf"decoder.blocks.{ours}.\1.0.\2"),
            (r"decoder\.stages\.\d+\.convs\.(\d+)\.norm\.(.*)", rf"decoder.blocks.{ours}.\1.1.\2"),
            (
                r"decoder\.seg_layers\.\d+\.(.*)",
                rf"decoder.seg_layers.{ours}.{'conv.' if ours == '0' else ''}\1",
            ),
        ]
    else:
        stage = re.match(r"encoder\.stages\.(\d+)", key)
        first = int(stage is not None and with_pool[int(stage[1])])
        block, inner = r"encoder\.stages\.(\d+)\.blocks\.(\d+)", r"stages.\1.blocks.\2"
        rules = [
            (r"encoder\.stages\.(\d+)\.0\.convs\.0\.conv\.(.*)", r"stages.\1.blocks.0.conv.\2"),
            (r"encoder\.stages\.(\d+)\.0\.convs\.0\.norm\.(.*)", r"stages.\1.blocks.0.norm1.\2"),
            (r"encoder\.stages\.(\d+)\.0\.convs\.1\.conv\.(.*)", r"stages.\1.blocks.0.mixer.0.\2"),
            (r"encoder\.stages\.(\d+)\.0\.convs\.1\.norm\.(.*)", r"stages.\1.blocks.0.norm2.\2"),
            (r"encoder\.stem\.convs\.0\.conv\.(.*)", r"stages.0.downsample.0.\1"),
            (r"encoder\.stem\.convs\.0\.norm\.(.*)", r"stages.0.downsample.1.\1"),
            (rf"{block}\.conv1\.conv\.(.*)", rf"{inner}.conv.\3"),
            (rf"{block}\.conv1\.norm\.(.*)", rf"{inner}.norm1.\3"),
            (rf"{block}\.conv2\.conv\.(.*)", rf"{inner}.mixer.0.\3"),
            (rf"{block}\.conv2\.norm\.(.*)", rf"{inner}.norm2.\3"),
            (rf"{block}\.skip\.\d+\.conv\.(.*)", rf"{inner}.shortcut.{first}.\3"),
            (rf"{block}\.skip\.\d+\.norm\.(.*)", rf"{inner}.shortcut.{first + 1}.\3"),
        ]
    found = [match.expand(ours) for rule, ours in rules if (match := re.fullmatch(rule, key))]
    assert len(found) == 1, key
    return found[0]


def mapped(theirs: nn.Module, planned: Plan) -> dict[str, torch.Tensor]:
    """Return DNA's parameters by our keys."""
    with_pool = [stage.inp.grid != stage.out.grid for stage in planned.stages]
    num_levels = len(planned.stages) - 1
    return {
        renamed(key, num_levels=num_levels, with_pool=with_pool): value.detach()
        for key, value in theirs.named_parameters()
    }


def small(name: str, patch: Sequence[int], strides: Sequence[Any]) -> Plan:
    """Plan the bundled spec with few stages and channels, and the given strides."""
    tree = archspec.load(name).tree()
    stages = tree["encoder"]["stages"][: len(strides)]
    for stage, width, depth, stride in zip(stages, WIDTHS, DEPTHS, strides, strict=True):
        stage["width"] = width
        stage["downsample"]["stride"] = stride
        stage["depth"] = 1 if name == "unet" else depth
    tree["encoder"]["stages"] = stages
    tree["deep_supervision"]["heads"] = len(strides) - 1
    return plan(archspec.load(tree), in_channels=2, num_classes=3, patch_size=tuple(patch))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SPECS)
def test_logits_of_every_head(name: str, case: str) -> None:
    planned = small(name, *CASES[case])
    theirs, ours = official(planned), build_plan(planned)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours.load_state_dict(mapped(theirs, planned))
    ours.decoder.deep_supervision = True
    x = torch.randn(2, 2, *planned.patch_size)
    want, found = theirs(x), ours(x)
    assert len(found) == len(want) == len(planned.stages) - 1
    for wanted, got in zip(want, found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    for outputs in (want, found):
        sum(out.square().sum() for out in outputs).backward()
    grads = {key: parameter.grad for key, parameter in ours.named_parameters()}
    theirs_by_name = dict(theirs.named_parameters())
    table = dict(zip(theirs_by_name, mapped(theirs, planned), strict=True))
    for key, parameter in theirs_by_name.items():
        torch.testing.assert_close(grads[table[key]], parameter.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "params"),
    [("unet", 31_199_796), ("resenc-unet", 102_353_972)],  # DNA's classes, counted
)
def test_the_bundled_spec(name: str, params: int) -> None:
    planned = plan(archspec.load(name))
    with torch.device("meta"):
        theirs, ours = official(planned), build_plan(planned)
        x = torch.empty(1, 4, 128, 128, 128)
        ours.decoder.deep_supervision = True
        shapes = [[tuple(out.shape) for out in net(x)] for net in (theirs, ours)]
    assert len(shapes[0]) == 5
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in ours.parameters()) == params
    weights = {key: value.shape for key, value in mapped(theirs, planned).items()}
    assert weights == {key: value.shape for key, value in ours.state_dict().items()}
    heads = {key.split(".")[2] for key in weights if key.startswith("decoder.seg_layers.")}
    assert heads == set("01234")


@pytest.mark.parametrize("name", SPECS)
def test_start_values(name: str) -> None:
    planned = small(name, *CASES["3d"])
    theirs, ours = official(planned), build_plan(planned)
    theirs.apply(theirs.initialize)
    state = ours.state_dict()
    for key, value in mapped(theirs, planned).items():
        if value.numel() < 200:  # norms and biases, where all are equal; small heads are not
            if value.unique().numel() == 1:
                assert torch.equal(state[key], value), key
        else:
            assert state[key].std().item() == pytest.approx(value.std().item(), rel=0.3), key
            bound = math.sqrt(2 / (1 + 1e-4) / math.prod(value.shape[1:]))
            assert state[key].std().item() == pytest.approx(bound, rel=0.3), key


def test_zero_branches_start_as_their_shortcut() -> None:
    net = build_plan(small("resenc-unet", *CASES["3d"]))
    x = torch.randn(1, 6, 8, 4, 12)
    block = net.stages[1].blocks[1]
    torch.testing.assert_close(block(x), nn.functional.leaky_relu(x, 0.01))
