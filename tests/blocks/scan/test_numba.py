"""The numba backend against the readable reference, on any threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.backends import numba_backend, reference
from blocks.scan.orders import order_index

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias", "z")
TOLERANCES = {torch.float32: 4e-6, torch.float64: 1e-12}  # of the largest value, against float64
Inputs = list[Tensor | None]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scan_inputs(
    length: int,
    channels: int,
    states: int,
    *,
    batch: int = 2,
    directions: int = 1,
    gate: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    tokens = (batch, directions, length)
    found: Inputs = [
        torch.randn(*tokens, channels),
        torch.randn(*tokens, channels) - 1,
        -torch.rand(directions, channels, states) * states - 0.1,
        torch.randn(*tokens, states),
        torch.randn(*tokens, states),
        torch.randn(directions, channels),
        torch.randn(directions, channels),
        torch.randn(batch, length, channels) if gate else None,
    ]
    return [None if t is None else t.to(dtype) for t in found]


def expected_scan(inputs: Inputs, orders: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Permute by indexing, run the reference, permute back, add the directions."""
    u, delta, A, B, C, D, delta_bias, z = inputs
    total, boundaries = torch.zeros(()), []
    for k, order in enumerate(orders):
        rows = order_index(order, u.shape[2], u.device)
        one = slice(k, k + 1)
        permuted = (t[:, one, rows] for t in (u, delta, B, C))
        u_, delta_, B_, C_ = permuted
        y, states = reference.recurrence(u_, delta_, A[one], B_, C_, D[one], delta_bias[one])
        total = total + y[:, 0, rows.argsort()]
        boundaries.append(states)
    return total if z is None else total * F.silu(z), torch.cat(boundaries, dim=1)


def expected_conv(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    found = []
    for taps, offset, order in zip(weight, bias, orders, strict=True):
        rows = order_index(order, x.shape[1], x.device)
        padded = F.pad(x[:, rows].mT, (taps.shape[-1] - 1, 0))
        y = F.conv1d(padded, taps.unsqueeze(1), offset, groups=x.shape[2])
        found.append(F.silu(y).mT[:, rows.argsort()])
    return torch.stack(found, dim=1)


def assert_close(name: str, found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype, name
    limit = TOLERANCES[dtype] * max(1e-30, wanted.abs().max().item())
    torch.testing.assert_close(
        found.double(), wanted.double(), rtol=0, atol=limit, msg=lambda text: f"{name}: {text}"
    )


def leaves_of(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.detach().double().requires_grad_() for t in tensors]


def compare_scan(inputs: Inputs, orders: Sequence[int]) -> None:
    dtype = inputs[0].dtype
    leaves = leaves_of(inputs)
    out, boundaries = expected_scan(leaves, orders)
    found, states = numba_backend.selective_scan(*inputs, orders)
    assert_close("out", found, out, dtype)
    assert_close("boundaries", states, boundaries, dtype)
    cotangent = torch.randn(out.shape, dtype=dtype)
    wanted = torch.autograd.grad(
        out, [t for t in leaves if t is not None], cotangent.double(), materialize_grads=True
    )
    grads = numba_backend.selective_scan_backward(cotangent, *inputs, states, orders)
    assert inputs[-1] is not None or grads[-1].numel() == 0
    for name, grad, want in zip(NAMES, grads, wanted, strict=False):
        assert_close(f"d{name}", grad, want, dtype)


def compare_conv(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> None:
    leaves = [t for t in leaves_of([x, weight, bias]) if t is not None]
    want = expected_conv(*leaves, orders)
    found = numba_backend.causal_conv1d(x, weight, bias, orders)
    assert_close("out", found, want, x.dtype)
    cotangent = torch.randn(want.shape, dtype=x.dtype)
    wanted = torch.autograd.grad(want, leaves, cotangent.double())
    grads = numba_backend.causal_conv1d_backward(cotangent, x, weight, bias, orders)
    for name, grad, want in zip(("dx", "dweight", "dbias"), grads, wanted, strict=True):
        assert_close(name, grad, want, x.dtype)


CASES = [  # length, channels, states, orders
    (1, 1, 1, (1,)),
    (2, 5, 8, (-1, 2)),
    (31, 17, 16, (1, -1, 31)),
    (64, 33, 1, (1, -1, 8)),
    (65, 5, 64, (5, -1)),
    (130, 16, 5, (1, 1)),
    (96, 48, 17, (12,)),
]


@pytest.mark.parametrize("gate", [True, False], ids=["z", "no-z"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_scan_equals_reference(case: Any, dtype: torch.dtype, gate: bool) -> None:
    length, channels, states, orders = case
    directions = len(orders)
    inputs = scan_inputs(length, channels, states, directions=directions, gate=gate, dtype=dtype)
    compare_scan(inputs, orders)


def test_scan_over_several_macro_blocks() -> None:
    assert numba_backend.MIN_MACRO < 4096 // 8
    compare_scan(scan_inputs(4096, 17, 8, batch=1, directions=3), (1, -1, 16))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("taps", [1, 2, 4, 70])
@pytest.mark.parametrize("length", [1, 3, 65, 192])
def test_conv_equals_torch(length: int, taps: int, dtype: torch.dtype) -> None:
    orders = (1, -1, 3) if length % 3 == 0 else (1, -1)
    x = torch.randn(2, length, 21, dtype=dtype)
    weight = torch.randn(len(orders), 21, taps, dtype=dtype) / taps**0.5
    compare_conv(x, weight, torch.randn(len(orders), 21, dtype=dtype), orders)


def test_sliced_and_expanded_inputs() -> None:
    """What a Mamba layer passes: slices of projections, one u for every direction."""
    inputs = scan_inputs(65, 20, 16, directions=2)
    whole = torch.randn(2, 2, 65, 3 + 16 + 16)
    _, inputs[3], inputs[4] = whole.split((3, 16, 16), dim=-1)
    inputs[0] = torch.randn(2, 1, 65, 20).expand(2, 2, 65, 20)
    inputs[7] = torch.randn(2, 65, 40)[..., 20:]
    compare_scan(inputs, (1, -1))
    x = torch.randn(2, 65, 40)[..., :20]
    compare_conv(x, torch.randn(2, 20, 4), torch.randn(2, 20), (1, 5))


def test_any_strides() -> None:
    inputs = [
        None if t is None else t.transpose(0, -1).contiguous().transpose(0, -1)
        for t in scan_inputs(65, 20, 16, directions=2)
    ]
    compare_scan(inputs, (1, -1))
    x = torch.randn(65, 20, 2).permute(2, 0, 1)
    compare_conv(x, torch.randn(4, 20, 2).transpose(0, 2), torch.randn(20, 2).mT, (1, 5))


def everything(inputs: Inputs, orders: Sequence[int]) -> list[Tensor]:
    out, boundaries = numba_backend.selective_scan(*inputs, orders)
    grads = numba_backend.selective_scan_backward(out, *inputs, boundaries, orders)
    weight, bias = inputs[2][..., :4], inputs[5]
    y = numba_backend.causal_conv1d(out, weight, bias, orders)
    more = numba_backend.causal_conv1d_backward(y, out, weight, bias, orders)
    return [out, boundaries, *grads, y, *more]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_same_bits_for_any_number_of_threads(threads: Callable[[int], None]) -> None:
    inputs = scan_inputs(4096 + 64, 40, 8, batch=1, directions=3)
    found = []
    for count in (1, 2, 3, 2):
        threads(count)
        found.append(everything(inputs, (1, -1, 8)))
    assert all(same_bits(found[0], others) for others in found[1:])


def test_python_threads_at_once(threads: Callable[[int], None]) -> None:
    threads(2)
    inputs = scan_inputs(320, 40, 8, directions=2)
    want = everything(inputs, (1, -1))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: everything(inputs, (1, -1)), range(8)))
    assert all(same_bits(want, others) for others in found)


def test_nan_stays_in_its_channel() -> None:
    inputs = scan_inputs(70, 20, 4, batch=1)
    inputs[1][0, 0, 30, 7] = torch.nan
    out, _ = numba_backend.selective_scan(*inputs, (1,))
    bad = out.isnan()
    assert bad[0, 30:, 7].all()
    assert bad.sum() == 40


def test_low_precision_and_mixed_inputs() -> None:
    inputs = scan_inputs(65, 20, 4, directions=2)
    low: Inputs = [t if i in (2, 5, 6) else t.bfloat16() for i, t in enumerate(inputs)]
    out, boundaries = numba_backend.selective_scan(*low, (1, -1))
    assert out.dtype == torch.bfloat16
    assert boundaries.dtype == torch.float32
    exact = [t.float() for t in low]
    want, states = numba_backend.selective_scan(*exact, (1, -1))
    assert torch.equal(out, want.bfloat16())
    found = numba_backend.selective_scan_backward(out, *low, boundaries, (1, -1))
    wanted = numba_backend.selective_scan_backward(out.float(), *exact, states, (1, -1))
    assert same_bits(list(found), list(wanted))
    assert numba_backend.causal_conv1d(out, inputs[2], inputs[5], (1, -1)).dtype == out.dtype


@pytest.mark.parametrize("index", range(8))
def test_wrong_inputs_are_refused(index: int) -> None:
    inputs = scan_inputs(10, 5, 4, directions=2)
    good = inputs[index]
    for bad in (good[..., :-1], good.to("meta"), good.int(), good.unsqueeze(0)):
        inputs[index] = bad
        with pytest.raises(ValueError, match=f"numba backend: .*{NAMES[index]}|must be"):
            numba_backend.selective_scan(*inputs, (1, -1))


def test_wrong_orders_are_refused() -> None:
    inputs = scan_inputs(10, 5, 4, directions=2)
    for orders in ((1, 3), (1,), (0, 1)):
        with pytest.raises(ValueError, match=r"order|must be"):
            numba_backend.selective_scan(*inputs, orders)
