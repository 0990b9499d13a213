"""The residual block with its gate and its projection, around every mixer."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec.network.build import build_plan
from archspec.network.plan import plan
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec, SpecError, StageShape
from blocks.layers.conv_gate import ConvGate
from blocks.wrappers.residual import ResidualBlock, ResidualBlockSpec

FULL = ResidualBlockSpec(gate="conv", project=True, layer_scale=1e-4)

SpecFactory = Callable[..., ArchSpec]


@pytest.mark.parametrize(
    ("strides", "patch"),
    [
        ([2, [1, 2], [3, 1]], [18, 20]),
        ([[1, 2, 2], 2], [6, 12, 20]),
        ([1, [2, 3, 1]], [10, 9, 3]),
    ],
)
def test_every_network_trains_with_it(
    mixer: ComponentSpec,
    decoder: ComponentSpec,
    strides: Sequence[Any],
    patch: list[int],
    small_spec: SpecFactory,
    train_step: Callable[[nn.Module, Tensor], float],
) -> None:
    spec = small_spec(
        len(patch), mixer=mixer, decoder=decoder, block=FULL, strides=strides, patch_size=patch
    )
    net = build_plan(plan(spec))
    assert train_step(net, torch.randn(2, 1, *patch)) < 10
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert torch.isfinite(parameter).all(), name


def block_at(at: StageShape, **fields: Any) -> ResidualBlock:
    spec = ResidualBlockSpec(**fields)
    built = spec.build(at, mixer=nn.Tanh(), ffn=None)
    assert isinstance(built, ResidualBlock)
    return built


@pytest.mark.parametrize("grid", [(3, 5), (3, 5, 2)])
def test_gate_chooses_between_mixer_and_convolution(grid: tuple[int, ...]) -> None:
    """With its bias far up the gate leaves the mixer alone, far down the convolution."""
    at = StageShape(4, grid)
    block, x = block_at(at, gate="conv"), torch.randn(2, 4, *grid)
    gate = block.gate
    assert isinstance(gate, ConvGate)
    normed = block.norm(x)
    with torch.no_grad():
        gate.weigh.bias.fill_(1e3)
        torch.testing.assert_close(block(x), x + normed.tanh())
        gate.weigh.bias.fill_(-1e3)
        torch.testing.assert_close(block(x), x + gate.local(normed))
        gate.weigh.bias.zero_()
        gate.weigh.weight.zero_()
        torch.testing.assert_close(block(x), x + (normed.tanh() + gate.local(normed)) / 2)


def test_projection_comes_after_the_gate_and_before_the_scale() -> None:
    at = StageShape(4, (3, 5))
    block, x = block_at(at, gate="conv", project=True, layer_scale=0.5), torch.randn(2, 4, 3, 5)
    assert block.gate is not None
    mixed = block.gate(block.norm(x).tanh(), block.norm(x))
    want = torch.einsum("oc,bchw->bohw", block.project.weight, mixed)
    want = want + block.project.bias.view(-1, 1, 1)
    torch.testing.assert_close(block(x), x + 0.5 * want)


def test_bfloat16_autocast() -> None:
    at = StageShape(4, (3, 5))
    block, x = block_at(at, gate="conv", project=True), torch.randn(2, 4, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x)
        assert block.project(x).dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), block(x), rtol=0.05, atol=0.02)


def test_one_position_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^gate: 'instance_affine' over a grid of one .* gate: no"):
        FULL.check(StageShape(4, (1, 1)))
    ResidualBlockSpec(project=True).check(StageShape(4, (1, 1)))
