"""The concatenation decoder: widths, its ways up, the input skip, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError, StageShape
from blocks.decoders.concat import ConcatDecoderSpec
from blocks.decoders.decoder import Heads
from blocks.layers.residual_unit import ResidualUnit

SpecFactory = Callable[..., ArchSpec]
SKIPS = (StageShape(8, (8, 8)), StageShape(12, (4, 4)), StageShape(16, (4, 2)))
INPUT = StageShape(3, (16, 16))


def widths(spec: ConcatDecoderSpec) -> tuple[list[int], list[int]]:
    """Return the channels of the levels and of the features, fine to coarse."""
    skips = (INPUT, *SKIPS) if spec.takes_input else SKIPS
    return [at.channels for at in spec.levels(skips)], [
        at.channels for at in spec.feature_shapes(skips)
    ]


def test_widths() -> None:
    make = ConcatDecoderSpec
    assert widths(make()) == ([8, 12, 16], [8, 12])
    assert widths(make(bottleneck_width=20)) == ([8, 12, 20], [8, 12])
    assert widths(make(skip_block="none")) == ([8, 12, 16], [8, 12])
    assert widths(make(input_skip=True)) == ([8, 12, 16, 32], [8, 12, 16])
    assert widths(make(input_skip=True, bottleneck_width=40)) == ([8, 12, 16, 40], [8, 12, 16])
    assert widths(make(input_skip=True, skip_block="none")) == ([3, 8, 12, 16], [8, 8, 12])


def test_bottleneck_width_needs_a_unit() -> None:
    spec = ConcatDecoderSpec(skip_block="none", bottleneck_width=8)
    with pytest.raises(SpecError, match=r"^decoder\.bottleneck_width: needs skip_block: residual"):
        spec.check(SKIPS, Heads(count=1, num_classes=2, patch_size=(16, 16)))


@pytest.mark.parametrize("input_skip", [True, False])
@pytest.mark.parametrize("skip_block", ["residual", "none"])
@pytest.mark.parametrize("up", ["transpose", "interpolate"])
@pytest.mark.parametrize("num_convs", [None, 1, 2])
@pytest.mark.parametrize(
    ("strides", "patch_size"),
    [([2, 2], [12, 20]), ([1, [1, 2, 2], 3], [9, 12, 6]), ([[1, 3]], [5, 9]), ([1], [6, 5])],
)
def test_fits_any_encoder(
    small_spec: SpecFactory,
    input_skip: bool,
    skip_block: Any,
    up: Any,
    num_convs: int | None,
    strides: list[Any],
    patch_size: list[int],
) -> None:
    decoder = ConcatDecoderSpec(
        input_skip=input_skip, skip_block=skip_block, up=up, num_convs=num_convs, fue=True
    )
    spec = small_spec(len(patch_size), decoder=decoder, strides=strides, patch_size=patch_size)
    net = build_plan(plan(spec, in_channels=3))
    logits = net(torch.randn(2, 3, *patch_size))
    assert logits.shape == (2, 2, *patch_size)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_plain_steps() -> None:
    spec = ConcatDecoderSpec(num_convs=3, skip_block="none", norm="instance")
    decoder = spec.build(SKIPS, Heads(count=2, num_classes=2, patch_size=(8, 8)))
    skips = [torch.randn(2, at.channels, *at.grid) for at in SKIPS]
    x, found = skips[2], []
    for level in (1, 0):
        x = torch.cat([decoder.ups[level].conv(x), skips[level]], dim=1)
        for step in decoder.blocks[level]:
            x = nn.functional.leaky_relu(nn.functional.instance_norm(step[0](x)), 0.01)
        found.append(x)
    for feature, want in zip(decoder.features(skips), found[::-1], strict=True):
        torch.testing.assert_close(feature, want)
    assert [len(steps) for steps in decoder.blocks] == [3, 3]
    assert all(up.conv.bias is not None for up in decoder.ups)


def test_conv_head_with_the_input_skip(small_spec: SpecFactory) -> None:
    decoder = ConcatDecoderSpec(input_skip=True, head="conv")
    net = build_plan(plan(small_spec(3, decoder=decoder, heads=3)))
    net.decoder.deep_supervision = True
    outputs = net(torch.randn(1, 1, 16, 32, 16))
    assert [tuple(out.shape[2:]) for out in outputs] == [(16, 32, 16), (8, 16, 8), (4, 8, 4)]


def test_input_reaches_the_output_directly(small_spec: SpecFactory) -> None:
    net = build_plan(plan(small_spec(2, decoder=ConcatDecoderSpec(input_skip=True)))).double()
    with torch.no_grad():
        for stage in net.stages:
            for parameter in stage.parameters():
                parameter.zero_()
    x = torch.randn(1, 1, 16, 32, dtype=torch.float64, requires_grad=True)
    net(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


@pytest.mark.parametrize("grid", [(4, 6), (4, 6, 5)])
@pytest.mark.parametrize("in_channels", [4, 6])
def test_residual_unit(in_channels: int, grid: tuple[int, ...]) -> None:
    unit = ResidualUnit(
        in_channels,
        StageShape(4, grid),
        kernel_size=(3,) * len(grid),
        norm="instance",
        act="leaky_relu",
    )
    x = torch.randn(2, in_channels, *grid)

    def normed(z: torch.Tensor) -> torch.Tensor:
        return nn.functional.instance_norm(z)

    hidden = nn.functional.leaky_relu(normed(unit.conv1(x)), 0.01)
    shortcut = x if in_channels == 4 else normed(unit.shortcut[0](x))
    want = nn.functional.leaky_relu(normed(unit.conv2(hidden)) + shortcut, 0.01)
    torch.testing.assert_close(unit(x), want)
    assert not [name for name, _ in unit.named_parameters() if name.endswith("bias")]
