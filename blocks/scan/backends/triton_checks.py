"""What the Triton kernels refuse before a pointer reaches them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from blocks.scan.backends.triton_rows import INTERPRETED
from blocks.scan.orders import check_order

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MOST_STATES = 256


def check_scan(
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
    """Refuse scan inputs that do not fit.

    Raises:
        ValueError: a device, dtype, shape or order does not fit.
    """
    _check_rank("u", u, 4)
    _check_rank("A", A, 3)
    batch, directions, length, channels = u.shape
    states = A.shape[-1]
    tokens = (batch, directions, length)
    _check("u", u, tuple(u.shape), u)
    _check("delta", delta, (*tokens, channels), u)
    _check("A", A, (directions, channels, states), u)
    _check("B", B, (*tokens, states), u)
    _check("C", C, (*tokens, states), u)
    _check("D", D, (directions, channels), u)
    _check("delta_bias", delta_bias, (directions, channels), u)
    if z is not None:
        _check("z", z, (batch, length, channels), u)
    if not 1 <= states <= _MOST_STATES:
        raise ValueError(f"triton scan: N must be 1 to {_MOST_STATES}, but is {states}")
    _check_orders(orders, directions, length)


def check_conv(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> None:
    """Refuse convolution inputs that do not fit.

    Raises:
        ValueError: a device, dtype, shape or order does not fit.
    """
    _check_rank("x", x, 3)
    _check_rank("weight", weight, 3)
    channels, directions, width = x.shape[-1], len(orders), weight.shape[-1]
    _check("x", x, tuple(x.shape), x)
    _check("weight", weight, (directions, channels, width), x)
    _check("bias", bias, (directions, channels), x)
    if width < 1:
        raise ValueError("triton scan: weight must have at least 1 tap, but has 0")
    _check_orders(orders, directions, x.shape[1])


def check_gradient(grad: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Refuse a gradient that does not fit its output.

    Raises:
        ValueError: its device, dtype or shape does not fit.
    """
    _check("grad", grad, shape, like)


def _check_rank(name: str, tensor: Tensor, rank: int) -> None:
    if tensor.ndim != rank:
        raise ValueError(
            f"triton scan: {name} must have {rank} dimensions, but is {tuple(tensor.shape)}"
        )


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    if tensor.device.type != ("cpu" if INTERPRETED else "cuda"):
        raise ValueError(
            f"triton scan: {name} is on {tensor.device}; tensors must be on a CUDA device, "
            f"or on the CPU with TRITON_INTERPRET=1"
        )
    if tensor.dtype not in _DTYPES:
        raise ValueError(
            f"triton scan: {name} is {tensor.dtype}; the kernels take float32, float16, bfloat16"
        )
    if tuple(tensor.shape) != shape or tensor.device != like.device:
        raise ValueError(
            f"triton scan: {name} must be {shape} on {like.device}, "
            f"but is {tuple(tensor.shape)} on {tensor.device}"
        )
    if 0 in shape:
        raise ValueError(f"triton scan: {name} is empty: {shape}")


def _check_orders(orders: Sequence[int], directions: int, length: int) -> None:
    if len(orders) != directions:
        raise ValueError(f"triton scan: {directions} directions need as many orders: {orders}")
    for order in orders:
        check_order(order, length)
