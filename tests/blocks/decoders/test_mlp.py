"""The MLP decoder: what its order of concatenation means, and its norms."""

from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.base import StageShape
from blocks.decoders.decoder import Heads
from blocks.decoders.mlp import MLPDecoder, MLPDecoderSpec
from blocks.layers.norm import ChannelLayerNorm

SKIPS = {
    2: (StageShape(3, (8, 4)), StageShape(5, (4, 2)), StageShape(7, (2, 2))),
    3: (StageShape(3, (8, 4, 4)), StageShape(5, (4, 2, 4)), StageShape(7, (2, 2, 2))),
}


def build(ndim: int, **fields: Any) -> tuple[MLPDecoder, list[Tensor]]:
    torch.manual_seed(1)
    skips = SKIPS[ndim]
    heads = Heads(count=1, num_classes=2, patch_size=tuple(2 * n for n in skips[0].grid))
    decoder = MLPDecoderSpec(width=4, **fields).build(skips, heads)
    return decoder.eval(), [torch.randn(2, at.channels, *at.grid) for at in skips]


def test_order_permutes_the_columns_of_the_fuse(ndim: int) -> None:
    fine, skips = build(ndim, order="fine_first")
    coarse, _ = build(ndim, order="coarse_first")
    coarse.load_state_dict(fine.state_dict())
    grid = tuple(2 * n for n in skips[0].shape[2:])
    assert not torch.allclose(fine(skips, grid), coarse(skips, grid))
    blocks = fine.fuse[0].weight.detach().split(4, dim=1)
    coarse.fuse[0].weight.data = torch.cat(blocks[::-1], dim=1)
    torch.testing.assert_close(fine(skips, grid), coarse(skips, grid))


@pytest.mark.parametrize("width", [1, 6])
def test_weights_depend_on_channels_only(width: int, ndim: int) -> None:
    at = tuple(StageShape(at.channels, (2, *at.grid[1:])) for at in SKIPS[ndim])
    spec = MLPDecoderSpec(width=width, proj_norm="layer", fuse_norm="batch")
    decoder = spec.build(at, Heads(count=1, num_classes=3, patch_size=(4,) * ndim))
    linear = sum((skip.channels + 1) * width for skip in at)
    norms = len(at) * 2 * width + 2 * width
    fuse, head = len(at) * width * width, (width + 1) * 3
    assert sum(p.numel() for p in decoder.parameters()) == linear + norms + fuse + head
    assert all(isinstance(layers[1], ChannelLayerNorm) for layers in decoder.projections)
