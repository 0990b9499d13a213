"""The operator `causal_conv1d` against nn.functional.conv1d on permuted copies."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blocks.scan.causal_conv import causal_conv1d
from blocks.scan.orders import axis_order, order_index

pytestmark = pytest.mark.smoke

TOLERANCES = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
}


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def expected(x: Tensor, weight: Tensor, bias: Tensor, orders: tuple[int, ...]) -> Tensor:
    """Permute, pad, convolve, permute back, one direction after the other: (B, K, L, D)."""
    results = []
    for order, kernel, offset in zip(orders, weight, bias, strict=True):
        rows = order_index(order, x.shape[1], x.device)
        sequence = F.pad(x[:, rows].transpose(1, 2), (kernel.shape[1] - 1, 0))
        out = F.conv1d(sequence, kernel.unsqueeze(1), offset, groups=len(kernel))
        results.append(F.silu(out).transpose(1, 2)[:, rows.argsort()])
    return torch.stack(results, dim=1)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 12, 70])
def test_equals_conv1d(backend: str, length: int, taps: int, dtype: torch.dtype) -> None:
    swaps = axis_order((5, 7, 2), (2, 1, 0), mirrored=True)
    orders = {1: (1, -1), 2: (1, -1, 2), 12: (1, -1, 2), 70: (-1, -2, swaps)}[length]
    wide = leaf(2, length, 10, dtype=dtype)
    x = wide[..., :5]  # as the mixers have it: one half of a projection
    weight, bias = leaf(len(orders), 5, taps, dtype=dtype), leaf(len(orders), 5, dtype=dtype)
    out, want = causal_conv1d(x, weight, bias, orders), expected(x, weight, bias, orders)
    torch.testing.assert_close(out, want, **TOLERANCES[dtype])
    cotangent = torch.randn_like(out)
    found = torch.autograd.grad(out, (wide, weight, bias), cotangent)
    wanted = torch.autograd.grad(want, (wide, weight, bias), cotangent)
    for got, good in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, good, **TOLERANCES[dtype])


def test_opcheck(backend: str) -> None:
    inputs = (leaf(2, 6, 3), leaf(2, 3, 4), leaf(2, 3))
    torch.library.opcheck(torch.ops.archspec.causal_conv1d.default, (*inputs, [1, 3]))
    plain = tuple(t.detach() for t in inputs)
    torch.library.opcheck(
        torch.ops.archspec.causal_conv1d_backward.default, (torch.randn(2, 2, 6, 3), *plain, [1, 3])
    )


def test_mixed_precision(backend: str) -> None:
    x = leaf(2, 12, 5, dtype=torch.float32).to(torch.bfloat16)
    weight, bias = leaf(2, 5, 4, dtype=torch.float32), leaf(2, 5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = causal_conv1d(x, weight, bias, (1, 3))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out.float(), expected(x.float(), weight, bias, (1, 3)), rtol=0.01, atol=0.01
    )
    grads = torch.autograd.grad(out.float().sum(), (x, weight, bias))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32, torch.float32]


def test_flop_formula() -> None:
    with FlopCounterMode(display=False) as counter:
        causal_conv1d(leaf(2, 6, 3), leaf(2, 3, 4), leaf(2, 3), (1, 3))
    assert counter.get_total_flops() == 2 * 2 * 2 * 6 * 3 * 4


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((6, 3), (2, 3, 4), (2, 3)), "x must be"),
        (((1, 6, 3), (2, 4, 4), (2, 3)), "weight must be"),
        (((1, 6, 3), (3, 3, 4), (2, 3)), "weight must be"),
        (((1, 6, 3), (2, 3, 4), (3,)), "bias must be"),
        (((1, 7, 3), (2, 3, 4), (2, 3)), "order 3 does not fit 7 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(
    shapes: tuple[tuple[int, ...], ...], message: str, device: str
) -> None:
    with pytest.raises(ValueError, match=message):
        causal_conv1d(*(torch.ones(shape, device=device) for shape in shapes), (1, 3))


def test_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be of real numbers, not torch.int64"):
        causal_conv1d(torch.ones(1, 6, 3).long(), torch.ones(1, 3, 4), torch.ones(1, 3), (1,))
