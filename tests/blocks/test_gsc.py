"""GSC as the released code adds and as the paper's figure multiplies, written out."""

import torch
from torch import Tensor, nn

from blocks.base import StageShape
from blocks.local.gsc import GSCSpec


def test_gsc_sum_as_released() -> None:
    local = GSCSpec(combine="sum").build(StageShape(12, (6, 5))).double()
    x = torch.randn(1, 12, 6, 5, dtype=torch.float64)

    def part(layers: nn.Module, z: Tensor) -> Tensor:
        return normalised(layers[0](z)).relu()

    want = x + part(local.last, part(local.second, part(local.first, x)) + part(local.side, x))
    torch.testing.assert_close(local(x), want)
    assert [layers[0].kernel_size for layers in (local.first, local.second, local.side)] == [
        (3, 3),
        (3, 3),
        (1, 1),
    ]


def test_gsc_product_as_drawn() -> None:
    local = GSCSpec(combine="product").build(StageShape(12, (6, 5))).double()
    x = torch.randn(1, 12, 6, 5, dtype=torch.float64)

    def part(layers: nn.Module, z: Tensor) -> Tensor:
        return layers[1](normalised(z)).relu()

    gated = part(local.first, x) * part(local.side, x)
    torch.testing.assert_close(local(x), x + part(local.last, gated))
    added = part(local.first, x) + part(local.side, x)
    assert not torch.allclose(local(x), x + part(local.last, added))
    assert [layers[1].kernel_size for layers in (local.first, local.side, local.last)] == [
        (3, 3),
        (1, 1),
        (3, 3),
    ]


def normalised(z: Tensor) -> Tensor:
    axes = tuple(range(2, z.ndim))
    return (z - z.mean(axes, True)) / (z.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
