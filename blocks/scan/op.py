"""The operator `archspec::selective_scan`: several scan directions in one call.

One operator, and not a loop in Python, so that meta tracing, FLOP counting, `torch.compile` and
`torch.export` see it as a whole. Backends do the work (`blocks.scan.dispatch`).

Autocast changes no dtype here: every tensor is read in its own precision and the state is float32
or wider, so that half-precision activations are not copied. Autocast is off inside.

Legend: B batch, K directions, L tokens, D channels, N states per channel. Inputs and outputs are
in token order; each direction's order is an integer of `blocks.scan.orders`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from blocks.scan.backend import ScanGradients
from blocks.scan.backends import reference
from blocks.scan.backends.in_order import num_boundaries, wide_dtype
from blocks.scan.dispatch import backend_for
from blocks.scan.double_backward import differentiate_backward
from blocks.scan.orders import check_order


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
    tensors = (u, delta, A, B, C, D, delta_bias, z)
    _check(*tensors, orders)
    with torch.autocast(u.device.type, enabled=False):
        backend = backend_for(u.device, wide_dtype(*tensors))
        out, boundaries = backend.selective_scan(*tensors, orders)
    return out.contiguous(), boundaries.contiguous()


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
    tensors = (u, delta, A, B, C, D, delta_bias, z)
    _check(*tensors, orders)
    _check_backward(grad, boundaries, u, A)
    with torch.autocast(u.device.type, enabled=False):
        backend = backend_for(u.device, wide_dtype(*tensors))
        grads = backend.selective_scan_backward(grad, *tensors, boundaries, orders)
    like = (*tensors[:-1], grad if z is None else z)
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
        ValueError: a shape, dtype or device does not fit, or an order does not fit L.
    """
    out, _ = torch.ops.archspec.selective_scan(u, delta, A, B, C, D, delta_bias, z, list(orders))
    return out  # type: ignore[no-any-return]


@_selective_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    _check(u, delta, A, *rest)
    batch, directions, length, channels = u.shape
    shape = (batch, directions, num_boundaries(length), channels, A.shape[-1])
    wide = wide_dtype(u, delta, A, *rest[:-1])
    return u.new_empty(batch, length, channels), u.new_empty(shape, dtype=wide)


@_selective_scan_backward.register_fake
def _(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, z, _, _ = rest
    dz = grad.new_empty(0) if z is None else z.new_empty(z.shape)
    return (*(t.new_empty(t.shape) for t in tensors), dz)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, orders = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros for the states would be written and never read
    ctx.save_for_backward(*tensors, output[1])
    ctx.orders = orders


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, z, boundaries = ctx.saved_tensors
    if grad is None:
        return (None,) * (len(tensors) + 2)
    grads = torch.ops.archspec.selective_scan_backward(
        grad, *tensors, z, boundaries, list(ctx.orders)
    )
    return (*grads[:-1], None if z is None else grads[-1], None)


def _setup_double(ctx: Any, inputs: tuple[Any, ...], output: ScanGradients) -> None:
    *tensors, _, orders = inputs
    ctx.save_for_backward(*tensors)
    ctx.orders = orders


def _double_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    def scan(*tensors: Any) -> Tensor:
        arguments: Any = (*tensors, ctx.orders)
        return reference.selective_scan(*arguments)[0]

    grad, *tensors = ctx.saved_tensors
    return (*differentiate_backward(scan, grad, tensors, grads), None, None)


_selective_scan.register_autograd(_backward, setup_context=_setup_context)
_selective_scan_backward.register_autograd(_double_backward, setup_context=_setup_double)


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
    for name, tensor in {"u": u, **{name: tensor for name, (tensor, _) in wanted.items()}}.items():
        if not tensor.dtype.is_floating_point:
            raise ValueError(f"selective_scan: {name} must be of real numbers, not {tensor.dtype}")
    if len(orders) != directions:
        raise ValueError(f"selective_scan: {directions} directions need as many orders: {orders}")
    for order in orders:
        check_order(order, length)


def _check_backward(grad: Tensor, boundaries: Tensor, u: Tensor, A: Tensor) -> None:
    batch, directions, length, channels = u.shape
    kept = (batch, directions, num_boundaries(length), channels, A.shape[-1])
    for name, tensor, shape in (
        ("grad", grad, (batch, length, channels)),
        ("boundaries", boundaries, kept),
    ):
        if tuple(tensor.shape) != shape or tensor.device != u.device:
            raise ValueError(
                f"selective_scan: {name} must be {shape} on {u.device}, "
                f"but is {tuple(tensor.shape)} on {tensor.device}"
            )
