"""Mamba on a reduced grid."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import archspec
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError, StageShape
from blocks.mixers.mamba import MambaMixer, MambaMixerSpec


def build(grid: tuple[int, ...], **fields: Any) -> MambaMixer:
    built = MambaMixerSpec(d_state=4, **fields).build(StageShape(6, grid))
    assert isinstance(built, MambaMixer)
    return built


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("grid", "reduction", "step"),
    [
        ((4, 6), 2, (2, 2)),
        ((3, 4), (3, 1), (3, 1)),
        ((2, 4, 6), 2, (2, 2, 2)),
        ((3, 4, 2), (1, 4, 2), (1, 4, 2)),
    ],
)
def test_scans_the_tokens_of_a_strided_convolution(
    grid: tuple[int, ...], reduction: Any, step: tuple[int, ...], directions: int
) -> None:
    mixer = build(grid, reduction=reduction, directions=directions).double()
    small = tuple(n // s for n, s in zip(grid, step, strict=True))
    whole = build(small, directions=directions).double()
    state = mixer.state_dict()
    weight, bias, scale, shift = (
        state.pop(f"reduce.{name}") for name in ("0.weight", "0.bias", "1.weight", "1.bias")
    )
    whole.load_state_dict(state)
    x = torch.randn(2, 6, *grid, dtype=torch.float64)
    convolved = (F.conv2d if len(grid) == 2 else F.conv3d)(x, weight, bias, stride=step)
    assert convolved.shape[2:] == small
    tokens = F.layer_norm(convolved.movedim(1, -1), (6,), scale, shift).movedim(-1, 1)
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    want = F.interpolate(whole(tokens), size=grid, mode=mode, align_corners=False)
    torch.testing.assert_close(mixer(x), want)


def test_no_reduction_adds_nothing() -> None:
    assert not [name for name in build((2, 2)).state_dict() if name.startswith("reduce")]


def network(patch: list[int], reduction: Any) -> ArchSpec:
    mixer = {"kind": "mamba", "d_state": 4, "reduction": reduction}
    stage = {"width": 8, "downsample": {"stride": 2}, "mixer": mixer}
    return load(
        {
            "name": "net",
            "patch_size": patch,
            "encoder": {"stages": [stage]},
            "decoder": {"kind": "mlp"},
        }
    )


@pytest.mark.parametrize("patch", [[16, 24], [16, 24, 8]])
def test_cost_of_reduced_tokens(patch: list[int]) -> None:
    """The scan is counted at the tokens that it sees, r^n times fewer."""
    counted, whole = (archspec.cost(network(patch, reduction)) for reduction in (4, 1))
    assert counted.scan_flops * 4 ** len(patch) == whole.scan_flops
    with FlopCounterMode(display=False) as counter:
        archspec.build(network(patch, 4))(torch.randn(1, 1, *patch))
    assert counter.get_total_flops() == counted.flops


def test_grid_must_divide() -> None:
    assert plan(network([12, 16, 20], [3, 1, 2])).total_stride == (6, 2, 4)
    with pytest.raises(SpecError) as caught:
        plan(network([12, 16, 20], [4, 2, 2]), InputSizes(exact=True))
    message = str(caught.value)
    assert message.startswith("encoder.stages.0.mixer.reduction: grid [6, 8, 10] must ")
    assert message.endswith("nearest: [8, 16, 20] or [16, 16, 20]")
    with pytest.raises(SpecError, match=r"reduction: \[2, 2\] has 2 entries"):
        plan(network([16, 16, 16], [2, 2]))
    net = archspec.build(network([16, 16], 4))
    assert net(torch.randn(1, 1, 12, 16)).shape[2:] == (12, 16)
