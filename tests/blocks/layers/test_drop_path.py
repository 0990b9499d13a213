"""Stochastic depth and layer scale, against timm's and in a network."""

from typing import Any

import pytest
import timm.layers
import torch
from timm.layers import DropPath
from torch import nn

import archspec
from blocks.layers.layer_scale import ChannelLayerScale
from blocks.wrappers.residual import ResidualBlock


def net(depths: list[int], **block: Any) -> nn.Module:
    stages = [
        {
            "width": 8,
            "depth": depth,
            "block": {"kind": "residual", **block},
            "mixer": {"kind": "conv"},
            "ffn": {"kind": "mix"},
        }
        for depth in depths
    ]
    return archspec.build(
        {
            "name": "net",
            "patch_size": [16, 16],
            "encoder": {"stages": stages},
            "decoder": {"kind": "sum"},
        }
    )


@pytest.mark.parametrize(
    ("depths", "rates"), [([2, 1, 2], [0.1, 0.2, 0.3, 0.4]), ([1], []), ([1, 1], [0.4])]
)
def test_rate_rises_over_depth(depths: list[int], rates: list[float]) -> None:
    drops = [m for m in net(depths, drop_path=0.4).modules() if isinstance(m, DropPath)]
    assert [drop.drop_prob for drop in drops] == pytest.approx(rates)


def test_branches_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    block = [m for m in net([1, 1], drop_path=0.9).modules() if isinstance(m, ResidualBlock)][-1]
    x = torch.randn(64, 8, 4, 4)
    same = (block(x) == x).flatten(1).all(1)
    assert 0.5 < same.float().mean() < 1.0, "both branches are dropped in 81 of 100 samples"
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


@pytest.mark.parametrize("grid", [(4, 5), (4, 5, 3)])
def test_layer_scale_equals_timm(grid: tuple[int, ...]) -> None:
    x, ours, theirs = (
        torch.randn(2, 6, *grid),
        *(
            ChannelLayerScale(6, init=1e-4),
            timm.layers.LayerScale(6, init_values=1e-4),
        ),
    )
    assert torch.equal(ours.gamma, theirs.gamma)
    gamma = torch.randn(6)
    for scale in (ours, theirs):
        scale.load_state_dict({"gamma": gamma})
    torch.testing.assert_close(ours(x), theirs(x.movedim(1, -1)).movedim(-1, 1))


def test_each_branch_is_scaled() -> None:
    block = next(m for m in net([1], layer_scale=1e-4).modules() if isinstance(m, ResidualBlock))
    x = torch.randn(1, 8, 4, 4)
    want = x + 1e-4 * block.mixer(block.norm(x))
    assert block.ffn is not None
    assert block.ffn_norm is not None
    want = want + 1e-4 * block.ffn(block.ffn_norm(want))
    torch.testing.assert_close(block(x), want)
    plain = net([1]).state_dict()
    assert not [name for name in plain if "scale" in name or "drop" in name]
