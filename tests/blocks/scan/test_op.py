"""The operator against the readable reference, differentiated by autograd."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blocks.scan.backends import reference
from blocks.scan.op import selective_scan
from blocks.scan.orders import order_index

pytestmark = pytest.mark.smoke

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias", "z")
LENGTHS = [1, 2, 63, 64, 65, 130]
TOLERANCES = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
}

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]


def make_inputs(
    length: int,
    *,
    directions: int = 1,
    gate: bool = True,
    dtype: torch.dtype = torch.float64,
    channels: int = 3,
    states: int = 4,
    batch: int = 2,
) -> Inputs:
    tokens = (batch, directions, length)

    def leaf(value: Tensor) -> Tensor:
        return value.to(dtype).requires_grad_()

    return (
        leaf(torch.randn(*tokens, channels)),
        leaf(torch.randn(*tokens, channels)),
        leaf(-torch.rand(directions, channels, states) - 0.2),
        leaf(torch.randn(*tokens, states)),
        leaf(torch.randn(*tokens, states)),
        leaf(torch.randn(directions, channels)),
        leaf(torch.randn(directions, channels)),
        leaf(torch.randn(batch, length, channels)) if gate else None,
    )


def expected(inputs: Inputs, orders: Sequence[int]) -> Tensor:
    """Return the result by the reference alone: permute by indexing, scan, permute back, add."""
    u, delta, A, B, C, D, delta_bias, z = inputs
    total: Tensor | None = None
    for k, order in enumerate(orders):
        rows = order_index(order, u.shape[2], u.device)
        one = slice(k, k + 1)
        y, _ = reference.recurrence(
            u[:, one, rows],
            delta[:, one, rows],
            A[one],
            B[:, one, rows],
            C[:, one, rows],
            D[one],
            delta_bias[one],
        )
        in_token_order = y[:, 0, rows.argsort()]
        total = in_token_order if total is None else total + in_token_order
    assert total is not None
    return total if z is None else total * F.silu(z)


def leaves(inputs: Inputs) -> list[Tensor]:
    return [t for t in inputs if t is not None]


def compare(inputs: Inputs, orders: Sequence[int], *, rtol: float, atol: float) -> None:
    out, want = selective_scan(*inputs, orders), expected(inputs, orders)
    torch.testing.assert_close(out, want, rtol=rtol, atol=atol)
    cotangent = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves(inputs), cotangent)
    wanted = torch.autograd.grad(want, leaves(inputs), cotangent)
    for name, grad, reference_grad in zip(NAMES, found, wanted, strict=False):
        scale = max(1.0, reference_grad.abs().max().item())
        torch.testing.assert_close(
            grad, reference_grad, rtol=rtol, atol=atol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def orders_for(length: int) -> list[tuple[int, ...]]:
    slices = next((s for s in (5, 8, 9, 2) if length % s == 0), None)
    several = (1, -1) if slices is None else (1, -1, slices)
    return [(1,), (-1,), several, *([] if slices is None else [(slices,)])]


@pytest.mark.parametrize("gate", [True, False], ids=["z", "no-z"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_op_equals_reference(backend: str, length: int, dtype: torch.dtype, gate: bool) -> None:
    for orders in orders_for(length):
        inputs = make_inputs(length, directions=len(orders), gate=gate, dtype=dtype)
        compare(inputs, orders, **TOLERANCES[dtype])


def test_non_contiguous_inputs() -> None:
    orders = (1, -1, 5)
    inputs = make_inputs(65, directions=3)
    moved = tuple(
        None if t is None else t.detach().transpose(0, -1).contiguous().transpose(0, -1)
        for t in inputs
    )
    assert all(t is None or not t.is_contiguous() for t in moved)
    strided = tuple(None if t is None else t.requires_grad_() for t in moved)
    compare(strided, orders, **TOLERANCES[torch.float64])  # type: ignore[arg-type]


def test_broadcast_inputs() -> None:
    inputs = make_inputs(6, directions=2)
    u = torch.randn(2, 1, 6, 3, dtype=torch.float64, requires_grad=True)
    out = selective_scan(u.expand(2, 2, 6, 3), *inputs[1:], (1, -1))
    want = expected((u.expand(2, 2, 6, 3), *inputs[1:]), (1, -1))
    torch.testing.assert_close(out, want)
    found, wanted = (torch.autograd.grad(t.sum(), u)[0] for t in (out, want))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("gate", "contiguous"), [(True, False), (False, True)])
def test_opcheck(gate: bool, contiguous: bool) -> None:
    inputs = make_inputs(6, directions=2, gate=gate, dtype=torch.float32)
    if not contiguous:
        inputs = tuple(  # type: ignore[assignment]
            None
            if t is None
            else t.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
            for t in inputs
        )
    orders = [1, 3]
    torch.library.opcheck(torch.ops.archspec.selective_scan.default, (*inputs, orders))
    plain = [None if t is None else t.detach() for t in inputs]
    out, boundaries = torch.ops.archspec.selective_scan(*plain, orders)
    torch.library.opcheck(
        torch.ops.archspec.selective_scan_backward.default,
        (torch.randn_like(out), *plain, boundaries, orders),
    )


@pytest.mark.parametrize("gate", [True, False], ids=["z", "no-z"])
def test_gradcheck(gate: bool) -> None:
    inputs = make_inputs(4, directions=2, gate=gate, channels=2, states=2, batch=1)
    assert torch.autograd.gradcheck(
        lambda *tensors: selective_scan(*tensors, *([] if gate else [None]), (1, 2)),
        leaves(inputs),
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_boundary_states(backend: str, length: int) -> None:
    inputs = make_inputs(length, directions=2)
    _, boundaries = torch.ops.archspec.selective_scan(*inputs, [1, -1])
    assert boundaries.shape == (2, 2, max(2, -(-length // 64)), 3, 4)
    assert not boundaries[:, :, 0].any()
    half = tuple(None if t is None else t.detach().half() for t in inputs)
    assert torch.ops.archspec.selective_scan(*half, [1, -1])[1].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_state_wide(backend: str, dtype: torch.dtype) -> None:
    """Half-precision activations beside float32 parameters, as under autocast: no NaN, no copy."""
    inputs = make_inputs(130, directions=2, dtype=torch.float32)
    u, delta, A, B, C, D, bias, z = inputs
    with torch.autocast("cpu", dtype):
        low = (u.to(dtype), delta.to(dtype), A, B.to(dtype), C.to(dtype), D, bias, z.to(dtype))
        out, boundaries = torch.ops.archspec.selective_scan(*low, [1, -1])
        found = torch.autograd.grad(out.sum(), leaves(inputs))
    assert out.dtype == dtype
    assert boundaries.dtype == torch.float32
    exact = tuple(t.detach().float().requires_grad_() for t in low)
    want = expected(exact, (1, -1))
    wanted = torch.autograd.grad(want.sum(), exact)
    tolerance = 0.01 if dtype == torch.bfloat16 else 2e-3
    for got, good in zip((out, *found), (want, *wanted), strict=True):
        atol = tolerance * max(1, good.abs().max().item())
        torch.testing.assert_close(got.float(), good, rtol=tolerance, atol=atol)


def test_low_precision_without_autocast(backend: str) -> None:
    inputs = make_inputs(65, dtype=torch.float32)
    low = tuple(None if t is None else t.detach().bfloat16().requires_grad_() for t in inputs)
    out = selective_scan(*low, (1,))
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().sum(), leaves(low))  # type: ignore[arg-type]
    assert all(grad.dtype == torch.bfloat16 and torch.isfinite(grad).all() for grad in grads)


WRONG = [
    ("delta", (2, 2, 5, 3)),
    ("A", (1, 3, 4)),
    ("B", (2, 2, 6, 5)),
    ("C", (2, 1, 6, 4)),
    ("D", (3,)),
    ("delta_bias", (2, 4)),
    ("z", (2, 2, 6, 3)),
    ("u", (2, 6, 3)),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("name", "shape"), WRONG)
def test_wrong_shape_is_refused(name: str, shape: tuple[int, ...], device: str) -> None:
    inputs = dict(zip(NAMES, make_inputs(6, directions=2), strict=True)) | {name: torch.ones(shape)}
    tensors = [None if t is None else t.to(device) for t in inputs.values()]
    with pytest.raises(ValueError, match=f"selective_scan: .*{name}.* must be"):
        selective_scan(*tensors, (1, -1))  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("orders", [(1,), (1, -1, 1), (1, 4), (0, 1)])
def test_wrong_orders_are_refused(orders: tuple[int, ...], device: str) -> None:
    tensors = [None if t is None else t.to(device) for t in make_inputs(6, directions=2)]
    with pytest.raises(ValueError, match="order"):
        selective_scan(*tensors, orders)  # type: ignore[arg-type]


def test_mixed_devices_are_refused() -> None:
    u, *rest = make_inputs(6)
    with pytest.raises((ValueError, RuntimeError)):
        selective_scan(u, rest[0].to("meta"), *rest[1:], (1,))  # type: ignore[arg-type]


@pytest.mark.parametrize("gate", [True, False], ids=["z", "no-z"])
def test_flop_formula(gate: bool) -> None:
    inputs = make_inputs(10, directions=2, gate=gate, channels=3, states=4, batch=2)
    with FlopCounterMode(display=False) as counter:
        selective_scan(*inputs, (1, -1))
    per_direction = 9 * 2 * 10 * 3 * 4 + 2 * 10 * 3
    assert counter.get_total_flops() == 2 * per_direction + (2 * 10 * 3 if gate else 0)


def test_no_gradient_reaches_later_tokens() -> None:
    """A scan is causal in its own order."""
    inputs = make_inputs(12)
    out = selective_scan(*inputs, (3,))
    rows = order_index(3, 12, out.device).tolist()
    (grad,) = torch.autograd.grad(out[0, rows[5]].sum(), inputs[0])
    reached = grad[0, 0].abs().sum(-1) > 0
    assert [bool(reached[row]) for row in rows] == [True] * 6 + [False] * 6
