"""The operator `archspec::causal_conv1d`: Mamba's short convolution in several scan orders.

One operator, so that no backend needs a permuted copy of the sequence, and so that SiLU's input
need not be kept: backward computes it again. Autocast changes no dtype, as in `blocks.scan.op`.

Legend: B batch, K directions, L tokens, D channels, W taps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from blocks.scan.backends import reference
from blocks.scan.backends.in_order import wide_dtype
from blocks.scan.dispatch import backend_for
from blocks.scan.double_backward import differentiate_backward
from blocks.scan.orders import check_order


@torch.library.custom_op("archspec::causal_conv1d", mutates_args=())
def _causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    _check(x, weight, bias, orders)
    with torch.autocast(x.device.type, enabled=False):
        backend = backend_for(x.device, wide_dtype(x, weight, bias))
        return backend.causal_conv1d(x, weight, bias, orders).contiguous()


@torch.library.custom_op("archspec::causal_conv1d_backward", mutates_args=())
def _causal_conv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, bias, orders)
    wanted = (x.shape[0], weight.shape[0], *x.shape[1:])
    if tuple(grad.shape) != wanted or grad.device != x.device:
        raise ValueError(f"causal_conv1d: grad must be {wanted}, but is {tuple(grad.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        backend = backend_for(x.device, wide_dtype(x, weight, bias))
        dx, dweight, dbias = backend.causal_conv1d_backward(grad, x, weight, bias, orders)
    return (
        dx.to(x.dtype).contiguous(),
        dweight.to(weight.dtype).contiguous(),
        dbias.to(bias.dtype).contiguous(),
    )


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    """Convolve tokens along every order, each with taps of its own, and apply SiLU.

    Shapes: x (B, L, D); weight (K, D, W), the last tap for the token itself; bias (K, D). Returns
    (B, K, L, D) in token order and in x's dtype.

    Source: Mamba, arXiv 2312.00752, section 3.4.

    Raises:
        ValueError: a shape, dtype or device does not fit, or an order does not fit L.
    """
    out: Tensor = torch.ops.archspec.causal_conv1d(x, weight, bias, list(orders))
    return out


@_causal_conv1d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    _check(x, weight, bias, orders)
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[1:])


@_causal_conv1d_backward.register_fake
def _(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in rest[:-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, orders = inputs
    ctx.save_for_backward(*tensors)
    ctx.orders = orders


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.archspec.causal_conv1d_backward(grad, *ctx.saved_tensors, list(ctx.orders))
    return (*grads, None)


def _double_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    def convolve(*tensors: Any) -> Tensor:
        arguments: Any = (*tensors, ctx.orders)
        return reference.causal_conv1d(*arguments)

    grad, *tensors = ctx.saved_tensors
    return (*differentiate_backward(convolve, grad, tensors, grads), None)


_causal_conv1d.register_autograd(_backward, setup_context=_setup_context)
_causal_conv1d_backward.register_autograd(_double_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.archspec.causal_conv1d)
def conv_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
    """Count two operations per tap, token and channel, for every direction."""
    batch, length, channels = x
    return 2 * batch * length * channels * weight[0] * weight[-1]


def _check(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> None:
    if x.ndim != 3 or weight.ndim != 3:
        raise ValueError(
            f"causal_conv1d: x must be (B, L, D) and weight (K, D, W), "
            f"but they are {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    wanted = {
        "weight": (weight, (len(orders), x.shape[2], weight.shape[2])),
        "bias": (bias, (len(orders), x.shape[2])),
    }
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape or tensor.device != x.device:
            raise ValueError(
                f"causal_conv1d: {name} must be {shape} on {x.device}, "
                f"but is {tuple(tensor.shape)} on {tensor.device}"
            )
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if not tensor.dtype.is_floating_point:
            raise ValueError(f"causal_conv1d: {name} must be of real numbers, not {tensor.dtype}")
    for order in orders:
        check_order(order, x.shape[1])
