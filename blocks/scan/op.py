"""The operator `archspec::selective_scan`: several scan directions in one call.

One operator, and not a loop in Python, so that meta tracing, FLOP counting, `torch.compile` and
`torch.export` see it as a whole.

Legend: B batch, K directions, L tokens, D channels, N states per channel. Inputs and outputs are
in token order; each direction's order is an integer of `blocks.scan.orders`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from blocks.scan import reference
from blocks.scan.orders import check_order, order_index


@torch.library.custom_op("archspec::selective_scan", mutates_args=())
def _selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    orders: Sequence[int],
) -> tuple[Tensor, Tensor]:
    _check(u, delta, A, B, C, D, delta_bias, z, orders)
    wide = _wide(u.dtype)
    rows = _rows(orders, u)
    inputs = _in_scan_order(rows, wide, u, delta, A, B, C, D, delta_bias)
    y, boundaries = reference.selective_scan(*inputs)
    out = _scatter(y, rows).sum(1)
    if z is not None:
        out = out * F.silu(z.to(wide))
    return out.to(u.dtype).contiguous(), boundaries


@torch.library.custom_op("archspec::selective_scan_backward", mutates_args=())
def _selective_scan_backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    boundaries: Tensor,
    orders: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    wide = _wide(u.dtype)
    rows = _rows(orders, u)
    inputs = _in_scan_order(rows, wide, u, delta, A, B, C, D, delta_bias)
    dy, dz = grad.to(wide), grad.new_empty(0)
    if z is not None:
        y, _ = reference.selective_scan(*inputs)
        gate, sigmoid = F.silu(z.to(wide)), torch.sigmoid(z.to(wide))
        dz = dy * _scatter(y, rows).sum(1) * (sigmoid + gate * (1 - sigmoid))
        dy = dy * gate
    du, ddelta, dA, dB, dC, dD, dbias = reference.selective_scan_backward(
        _gather(dy.unsqueeze(1).expand_as(u), rows), *inputs, boundaries.to(wide)
    )
    du, ddelta, dB, dC = (_scatter(t, rows) for t in (du, ddelta, dB, dC))
    grads = (du, ddelta, dA, dB, dC, dD, dbias, dz)
    like = (u, delta, A, B, C, D, delta_bias, grad if z is None else z)
    typed = [g.to(t.dtype).contiguous() for g, t in zip(grads, like, strict=True)]
    return tuple(typed)  # type: ignore[return-value]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    orders: Sequence[int],
) -> Tensor:
    """Scan tokens in every order, add the directions, apply the gate: (B, L, D).

    Shapes: u, delta (B, K, L, D), delta before softplus; A (K, D, N), negative; B, C (B, K, L, N);
    D, delta_bias (K, D); z (B, L, D) or None. The state is float32 or wider, also under autocast.

    Raises:
        ValueError: a shape or device does not fit, or an order does not fit L.
    """
    out, _ = torch.ops.archspec.selective_scan(u, delta, A, B, C, D, delta_bias, z, list(orders))
    return out  # type: ignore[no-any-return]


@_selective_scan.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    orders: Sequence[int],
) -> tuple[Tensor, Tensor]:
    _check(u, delta, A, B, C, D, delta_bias, z, orders)
    batch, directions, length, channels = u.shape
    segments = reference.num_boundaries(length)
    shape = (batch, directions, segments, channels, A.shape[-1])
    return u.new_empty(batch, length, channels), u.new_empty(shape, dtype=_wide(u.dtype))


@_selective_scan_backward.register_fake
def _(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    boundaries: Tensor,
    orders: Sequence[int],
) -> tuple[Tensor, ...]:
    dz = grad.new_empty(0) if z is None else z.new_empty(z.shape)
    return (*(t.new_empty(t.shape) for t in (u, delta, A, B, C, D, delta_bias)), dz)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, orders = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])
    ctx.orders = orders


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, z, boundaries = ctx.saved_tensors
    grads = torch.ops.archspec.selective_scan_backward(
        grad, *tensors, z, boundaries, list(ctx.orders)
    )
    return (*grads[:-1], None if z is None else grads[-1], None)


_selective_scan.register_autograd(_backward, setup_context=_setup_context)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("archspec::selective_scan", _device, torch.float32)


@register_flop_formula(torch.ops.archspec.selective_scan)
def scan_flops(
    u: tuple[int, ...],
    delta: tuple[int, ...],
    A: tuple[int, ...],
    B: tuple[int, ...],
    C: tuple[int, ...],
    D: tuple[int, ...],
    delta_bias: tuple[int, ...],
    z: tuple[int, ...] | None,
    orders: Sequence[int],
    **_: object,
) -> int:
    """Count 9 B L D N for the recurrence and B L D for the skip, per direction; B L D for the gate.

    Source: github.com/state-spaces/mamba/issues/110.
    """
    batch, directions, length, channels = u
    gate = 0 if z is None else batch * length * channels
    return directions * batch * length * channels * (9 * A[-1] + 1) + gate


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    orders: Sequence[int],
) -> None:
    if u.ndim != 4 or A.ndim != 3:
        raise ValueError(
            f"selective_scan: u must be (B, K, L, D) and A (K, D, N), "
            f"but they are {tuple(u.shape)} and {tuple(A.shape)}"
        )
    batch, directions, length, channels = u.shape
    states = A.shape[-1]
    wanted = {
        "delta": (delta, (batch, directions, length, channels)),
        "A": (A, (directions, channels, states)),
        "B": (B, (batch, directions, length, states)),
        "C": (C, (batch, directions, length, states)),
        "D": (D, (directions, channels)),
        "delta_bias": (delta_bias, (directions, channels)),
    }
    if z is not None:
        wanted["z"] = (z, (batch, length, channels))
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape or tensor.device != u.device:
            raise ValueError(
                f"selective_scan: {name} must be {shape} on {u.device}, "
                f"but is {tuple(tensor.shape)} on {tensor.device}"
            )
    if len(orders) != directions:
        raise ValueError(f"selective_scan: {directions} directions need as many orders: {orders}")
    for order in orders:
        check_order(order, length)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _rows(orders: Sequence[int], u: Tensor) -> Tensor:
    """Return the (K, L) token that each direction reads at each position."""
    return torch.stack([order_index(order, u.shape[2], u.device) for order in orders])


_Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _in_scan_order(
    rows: Tensor,
    wide: torch.dtype,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> _Inputs:
    u, delta, B, C = (_gather(t.to(wide), rows) for t in (u, delta, B, C))
    return u, delta, A.to(wide), B, C, D.to(wide), delta_bias.to(wide)


def _gather(x: Tensor, rows: Tensor) -> Tensor:
    """Bring (B, K, L, X) from token order into scan order."""
    return x.gather(2, rows[None, :, :, None].expand_as(x))


def _scatter(x: Tensor, rows: Tensor) -> Tensor:
    """Bring (B, K, L, X) from scan order into token order."""
    return torch.empty_like(x).scatter_(2, rows[None, :, :, None].expand_as(x), x)
