"""Every block with every mixer and FFN, on odd and anisotropic grids; the stride in a block."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec, SpecError, StageShape
from blocks.layers.conv import conv
from blocks.wrappers.basic import BasicBlockSpec
from blocks.wrappers.block import ConvBlockSpec
from blocks.wrappers.plain import PlainBlockSpec

SpecFactory = Callable[..., ArchSpec]
TrainStep = Callable[[nn.Module, Tensor], float]

GRIDS = [
    ([[2, 1], [2, 1]], [12, 5]),
    ([[1, 2, 2], [1, 2, 2]], [5, 12, 4]),
]
"""Strides of the stages, and a patch size with odd grids, one position thick ones too."""


def network(*stages: dict[str, Any], patch_size: tuple[int, ...] = (12, 8)) -> ArchSpec:
    return load(
        {
            "name": "net",
            "patch_size": patch_size,
            "encoder": {
                "defaults": {"width": 4, "mixer": {"kind": "conv"}},
                "stages": list(stages),
            },
            "decoder": {"kind": "sum"},
        }
    )


@pytest.mark.parametrize(("strides", "patch_size"), GRIDS, ids=["2d", "3d"])
def test_any_mixer_trains_in_any_block(
    mixer: ComponentSpec,
    block: ComponentSpec,
    strides: list[Any],
    patch_size: list[int],
    small_spec: SpecFactory,
    train_step: TrainStep,
) -> None:
    ndim = len(patch_size)
    spec = small_spec(ndim, mixer=mixer, block=block, strides=strides, patch_size=patch_size)
    net = build_plan(plan(spec))
    assert train_step(net, torch.randn(2, 1, *patch_size)) < 10
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter).all(), name


def test_any_ffn_trains_in_any_block(
    ffn: ComponentSpec,
    block: ComponentSpec,
    ndim: int,
    small_spec: SpecFactory,
    train_step: TrainStep,
) -> None:
    planned = plan(small_spec(ndim, ffn=ffn, block=block))
    net = build_plan(planned)
    bare = build_plan(plan(small_spec(ndim, block=block)))
    sizes = [sum(p.numel() for p in part.parameters()) for part in (net, bare)]
    assert (sizes[0] > sizes[1]) == (type(ffn).model_fields["kind"].default != "none")
    assert train_step(net, torch.randn(2, 1, *planned.patch_size)) < 10
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("kind", ["plain", "basic"])
@pytest.mark.parametrize("norm", ["layer", "instance_affine"])
def test_two_steps(kind: str, norm: str) -> None:
    at = StageShape(4, (3, 5, 2))
    spec = {"plain": PlainBlockSpec, "basic": BasicBlockSpec}[kind](
        norm=norm, kernel_size=(1, 3, 5)
    )
    mixer = nn.Conv3d(4, 4, 1)
    block = spec.build(at, mixer=mixer, ffn=None)
    assert block.conv.kernel_size == (1, 3, 5)
    x = torch.randn(2, 4, *at.grid)
    hidden = nn.functional.leaky_relu(block.norm1(block.conv(x)), 0.01)
    out = block.norm2(mixer(hidden)) + (x if kind == "basic" else 0)
    torch.testing.assert_close(block(x), nn.functional.leaky_relu(out, 0.01))


@pytest.mark.parametrize("channels", [4, 6])
@pytest.mark.parametrize(
    ("grid", "stride"), [((6, 8), (2, 2)), ((6, 8), (1, 1)), ((3, 8, 6), (1, 2, 3))]
)
def test_shortcut_of_a_basic_block(
    channels: int, grid: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    inp = StageShape(channels, grid)
    at = StageShape(4, tuple(n // s for n, s in zip(grid, stride, strict=True)))
    first = conv(channels, 4, kernel_size=(3,) * at.ndim, stride=stride)
    block = BasicBlockSpec(norm="instance").build_first(
        inp, at, conv=first, mixer=nn.Identity(), ffn=None
    )
    x = torch.randn(2, channels, *grid)
    assert block(x).shape == (2, 4, *at.grid)
    pooled = x
    for axis, step in enumerate(stride, start=2):
        pooled = pooled.unflatten(axis, (-1, step)).mean(axis + 1)
    if channels != 4:
        project = next(m for m in block.shortcut if hasattr(m, "weight"))
        assert project.bias is None
        pooled = nn.functional.instance_norm(project(pooled))
    torch.testing.assert_close(block.shortcut(x), pooled)


def test_stride_in_the_first_block(block: ComponentSpec, ndim: int) -> None:
    entry = {"downsample": {"kernel_size": 5, "stride": 2, "in_block": True}}
    block_tree = block.model_dump(mode="json")
    if isinstance(block, ConvBlockSpec):
        block_tree["kernel_size"] = 1
    spec = network(
        {"depth": 2, "block": block_tree, **entry},
        {"width": 6, "depth": 1, "block": block_tree, **entry},
        patch_size=(12, 8, 4)[:ndim],
    )
    if not isinstance(block, ConvBlockSpec):
        kind = block_tree["kind"]
        with pytest.raises(SpecError) as caught:
            plan(spec)
        assert str(caught.value).splitlines() == [
            f"encoder.stages.{stage}.downsample.in_block: true needs block.kind basic or plain, "
            f"not '{kind}'"
            for stage in (0, 1)
        ]
        return
    net = build_plan(plan(spec))
    assert net(torch.randn(2, 1, *spec.patch_size)).shape == (2, 2, *spec.patch_size)
    for stage in net.stages:
        assert isinstance(stage.downsample, nn.Identity)
        for index, part in enumerate(stage.blocks):
            first = index == 0
            assert part.conv.kernel_size == (5 if first else 1,) * ndim
            assert part.conv.stride == (2 if first else 1,) * ndim


IN_BLOCK = {"downsample": {"in_block": True}, "block": {"kind": "basic"}}
REFUSED = {
    "no block": (
        {**IN_BLOCK, "depth": 0},
        "downsample.in_block: true needs depth of at least 1, for the block that holds the stride",
    ),
    "local": (
        {**IN_BLOCK, "local": {"kind": "gsc"}},
        "downsample.in_block: true needs local.kind none, not 'gsc', which would come before",
    ),
    "tap": (
        {**IN_BLOCK, "skip": {"tap": "before_blocks"}},
        "downsample.in_block: true needs skip.tap after, because the stage's grid starts in",
    ),
    "norm": (
        {**IN_BLOCK, "downsample": {"in_block": True, "norm": "layer"}},
        "downsample.in_block: true takes kernel_size, stride, sparse and bias only, for all "
        "else is the block's",
    ),
    "activation": (
        {**IN_BLOCK, "downsample": {"in_block": True, "act": "relu"}},
        "downsample.in_block: true takes kernel_size, stride, sparse and bias only",
    ),
    "even kernel in a block": (
        {"block": {"kind": "plain", "kernel_size": 2}},
        "block.kernel_size: [2, 2] must be odd to keep the grid",
    ),
    "even kernel behind the blocks": (
        {"post": {"kind": "conv", "kernel_size": [3, 2]}},
        "post.kernel_size: [3, 2] must be odd to keep the grid",
    ),
    "one position": (
        {
            "block": {"kind": "basic", "norm": "instance"},
            "downsample": {"stride": [4, 4], "kernel_size": 5},
        },
        "block.norm: 'instance' over a grid of one position",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    stage, want = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        plan(network(stage), patch_size=(4, 4), exact=True)
    assert str(caught.value).startswith(f"encoder.stages.0.{want}")
    assert len(caught.value.problems) == 1 + (case == "tap")  # wrong on a last stage as well


def test_refused_norm_names_a_patch_that_works() -> None:
    spec = network({"block": {"kind": "plain", "norm": "instance"}}, {})
    with pytest.raises(SpecError, match=r"a larger patch; nearest patch_size: \[4, 4\]\n"):
        plan(spec, patch_size=(2, 2), exact=True)
    with pytest.raises(SpecError, match=r"nearest patch_size: \[4, 8\]$"):
        plan(network({"norm": "batch"}, {"norm": "batch"}), patch_size=(4, 4), exact=True)
