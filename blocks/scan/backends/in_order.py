"""From token order to scan order and back, for backends that compute in scan order.

This copies the sequence, so it is for the reference and the fallback; the fast backends compute
row indices instead. Legend: B batch, K directions, L tokens, D channels, N states.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.orders import order_index

SEGMENT = 64
"""Tokens between two saved states."""

Recurrence = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]
]
RecurrenceBackward = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
]


def num_boundaries(length: int) -> int:
    """Return how many boundary states are saved: one per segment, at least two."""
    return max(2, -(-length // SEGMENT))


def wide_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the dtype to compute in: float32, or float64 where an input has it."""
    dtypes = (t.dtype for t in tensors if t is not None)
    return torch.float64 if torch.float64 in dtypes else torch.float32


def scan(
    recurrence: Recurrence,
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
    """Run a recurrence in every order, add the directions, apply the gate."""
    wide = wide_dtype(u, delta, A, B, C, D, delta_bias, z)
    rows = _rows(orders, u)
    inputs = _in_scan_order(rows, wide, u, delta, A, B, C, D, delta_bias)
    y, boundaries = recurrence(*inputs)
    out = scatter(y, rows).sum(1)
    if z is not None:
        out = out * F.silu(z.to(wide))
    return out.to(u.dtype), boundaries


def scan_backward(
    recurrence: Recurrence,
    backward: RecurrenceBackward,
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
    """Return the gradients of `scan`'s tensors; that of z is empty without a gate."""
    wide = wide_dtype(u, delta, A, B, C, D, delta_bias, z)
    rows = _rows(orders, u)
    inputs = _in_scan_order(rows, wide, u, delta, A, B, C, D, delta_bias)
    dy, dz = grad.to(wide), grad.new_empty(0)
    if z is not None:
        y, _ = recurrence(*inputs)
        gate, sigmoid = F.silu(z.to(wide)), torch.sigmoid(z.to(wide))
        dz = dy * scatter(y, rows).sum(1) * (sigmoid + gate * (1 - sigmoid))
        dy = dy * gate
    du, ddelta, dA, dB, dC, dD, dbias = backward(
        gather(dy.unsqueeze(1).expand_as(u), rows), *inputs, boundaries.to(wide)
    )
    du, ddelta, dB, dC = (scatter(t, rows) for t in (du, ddelta, dB, dC))
    return du, ddelta, dA, dB, dC, dD, dbias, dz


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    """Convolve along every order and apply SiLU: (B, L, D) -> (B, K, L, D)."""
    raw = _convolved(x, weight, bias, orders)
    return scatter(F.silu(raw), _rows(orders, raw)).to(x.dtype)


def causal_conv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    wide = wide_dtype(x, weight, bias)
    raw = _convolved(x, weight, bias, orders)
    rows = _rows(orders, raw)
    sigmoid = torch.sigmoid(raw)
    draw = gather(grad.to(wide), rows) * sigmoid * (1 + raw * (1 - sigmoid))
    kernel, taps = weight.to(wide), weight.shape[-1]
    padded = F.pad(_sequences(x, rows).to(wide), (0, 0, taps - 1, 0))
    dpadded, dweight, length = torch.zeros_like(padded), torch.empty_like(kernel), x.shape[1]
    for tap in range(taps):
        dpadded[:, :, tap : tap + length] += draw * kernel[:, None, :, tap]
        dweight[:, :, tap] = (draw * padded[:, :, tap : tap + length]).sum((0, 2))
    dx = scatter(dpadded[:, :, taps - 1 :], rows).sum(1)
    return dx, dweight, draw.sum((0, 2))


def gather(x: Tensor, rows: Tensor) -> Tensor:
    """Bring (B, K, L, X) from token order into scan order."""
    return x.gather(2, rows[None, :, :, None].expand_as(x))


def scatter(x: Tensor, rows: Tensor) -> Tensor:
    """Bring (B, K, L, X) from scan order into token order."""
    return torch.empty_like(x).scatter_(2, rows[None, :, :, None].expand_as(x), x)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    """Return the convolution before SiLU, in scan order: (B, K, L, D)."""
    wide = wide_dtype(x, weight, bias)
    (directions, channels, taps), length = weight.shape, x.shape[1]
    rows = torch.stack([order_index(order, length, x.device) for order in orders])
    sequences = _sequences(x, rows).to(wide).transpose(2, 3).flatten(1, 2)
    raw = F.conv1d(
        F.pad(sequences, (taps - 1, 0)),
        weight.to(wide).reshape(directions * channels, 1, taps),
        bias.to(wide).flatten(),
        groups=directions * channels,
    )
    return raw.view(-1, directions, channels, length).transpose(2, 3)


def _sequences(x: Tensor, rows: Tensor) -> Tensor:
    """Return x (B, L, D) in every order: (B, K, L, D)."""
    return x[:, rows]


def _rows(orders: Sequence[int], x: Tensor) -> Tensor:
    """Return the (K, L) token that each direction reads at each position."""
    return torch.stack([order_index(order, x.shape[2], x.device) for order in orders])


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
    u, delta, B, C = (gather(t.to(wide), rows) for t in (u, delta, B, C))
    return u, delta, A.to(wide), B, C, D.to(wide), delta_bias.to(wide)
