"""Adapter to mamba-ssm's CUDA scan and causal-conv1d's convolution, where they are installed.

Only upstream's public functions: `selective_scan_fn` of github.com/state-spaces/mamba@e9594ce
and `causal_conv1d_fn` of github.com/Dao-AILab/causal-conv1d 1.7. They want channels first and one
dtype, so this copies; all directions go in one call, as groups of channels. The boundary states
stay zero: backward runs upstream's forward again.

Legend: B batch, K directions, L tokens, D channels, N states per channel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.backend import ScanGradients
from blocks.scan.backends import in_order
from blocks.scan.backends.in_order import gather, num_boundaries, scatter
from blocks.scan.orders import order_index

_TAPS = (2, 3, 4)


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
) -> tuple[Tensor, Tensor]:
    """Scan by upstream's kernel; the state is float32 inside."""
    _check(u)
    rows = _rows(orders, u)
    y = _unfold(_run(*_inputs(u, delta, A, B, C, D, delta_bias, rows)), rows).float().sum(1)
    if z is not None:
        y = y * F.silu(z.float())
    batch, directions, length, channels = u.shape
    kept = (batch, directions, num_boundaries(length), channels, A.shape[-1])
    return y.to(u.dtype), u.new_zeros(kept, dtype=torch.float32)


def selective_scan_backward(
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
) -> ScanGradients:
    """Return the gradients of the scan's tensors by upstream's backward."""
    _check(u)
    rows = _rows(orders, u)
    leaves = [t.detach().requires_grad_() for t in _inputs(u, delta, A, B, C, D, delta_bias, rows)]
    with torch.enable_grad():
        y = _run(*leaves)
    dy, dz = grad.float(), grad.new_empty(0)
    if z is not None:
        sigmoid = torch.sigmoid(z.float())
        gate = z.float() * sigmoid
        dz = dy * _unfold(y.detach(), rows).float().sum(1) * (sigmoid + gate * (1 - sigmoid))
        dy = dy * gate
    dy = _fold(dy.to(y.dtype).unsqueeze(1).expand_as(u), rows)
    du, ddelta, dA, dB, dC, dD, dbias = torch.autograd.grad(y, leaves, dy)
    return (
        _unfold(du, rows),
        _unfold(ddelta, rows),
        dA.view_as(A),
        scatter(dB.transpose(2, 3), rows),
        scatter(dC.transpose(2, 3), rows),
        dD.view_as(D),
        dbias.view_as(delta_bias),
        dz,
    )


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    """Convolve by upstream's kernel; it has 2 to 4 taps, others go to PyTorch's."""
    _check(x)
    if weight.shape[-1] not in _TAPS:
        return in_order.causal_conv1d(x, weight, bias, orders)
    rows = _conv_rows(orders, x)
    return _unfold(_convolve(*_conv_inputs(x, weight, bias, rows)), rows)


def causal_conv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias by upstream's backward."""
    _check(x)
    if weight.shape[-1] not in _TAPS:
        return in_order.causal_conv1d_backward(grad, x, weight, bias, orders)
    rows = _conv_rows(orders, x)
    leaves = [t.detach().requires_grad_() for t in _conv_inputs(x, weight, bias, rows)]
    with torch.enable_grad():
        out = _convolve(*leaves)
    dx, dweight, dbias = torch.autograd.grad(out, leaves, _fold(grad.to(out.dtype), rows))
    return _unfold(dx, rows).float().sum(1), dweight.view_as(weight), dbias.view_as(bias)


def _run(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    y: Tensor = selective_scan_fn(
        u, delta, A, B, C, D, z=None, delta_bias=delta_bias, delta_softplus=True
    )
    return y


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from causal_conv1d import causal_conv1d_fn

    out: Tensor = causal_conv1d_fn(x, weight, bias, activation="silu")
    return out


def _inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return upstream's inputs: (B, K D, L), (K D, N), (B, K, N, L), (K D)."""
    low = u.dtype
    B, C = (gather(t.to(low), rows).transpose(2, 3).contiguous() for t in (B, C))
    return (
        _fold(u, rows),
        _fold(delta.to(low), rows),
        A.float().flatten(0, 1),
        B,
        C,
        D.float().flatten(),
        delta_bias.float().flatten(),
    )


def _conv_inputs(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    sequences = _fold(x.unsqueeze(1).expand(-1, len(rows), -1, -1), rows)
    return sequences, weight.to(x.dtype).flatten(0, 1), bias.to(x.dtype).flatten()


def _fold(x: Tensor, rows: Tensor) -> Tensor:
    """Bring (B, K, L, D) in token order to (B, K D, L) in scan order."""
    return gather(x, rows).transpose(2, 3).flatten(1, 2).contiguous()


def _unfold(x: Tensor, rows: Tensor) -> Tensor:
    """Undo `_fold`."""
    directions = x.view(x.shape[0], len(rows), -1, x.shape[2])
    return scatter(directions.transpose(2, 3).contiguous(), rows)


def _rows(orders: Sequence[int], u: Tensor) -> Tensor:
    return torch.stack([order_index(order, u.shape[2], u.device) for order in orders])


def _conv_rows(orders: Sequence[int], x: Tensor) -> Tensor:
    return torch.stack([order_index(order, x.shape[1], x.device) for order in orders])


def _check(x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"mamba-ssm scans float32, float16 and bfloat16, not {x.dtype}")
