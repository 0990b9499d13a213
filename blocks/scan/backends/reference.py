"""The selective scan as a readable loop: the truth that every other backend is held against.

Legend: B batch, K directions, L tokens, D channels, N states per channel. The recurrences are in
scan order, in float32 or float64.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.backends import in_order
from blocks.scan.backends.in_order import SEGMENT, num_boundaries


def recurrence(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Run dt = softplus(delta + bias), h = exp(dt A) h + dt B u, y = C h + D u along L.

    Shapes: u, delta (B, K, L, D); A (K, D, N); B, C (B, K, L, N); D, delta_bias (K, D).
    Returns y (B, K, L, D) and the states at the start of each segment,
    (B, K, num_boundaries, D, N). The outputs are differentiable by autograd, the states are not.

    Source: Mamba, arXiv 2312.00752, algorithm 2 (Euler step for B, as in the authors' code).
    """
    dt = F.softplus(delta + delta_bias.unsqueeze(-2))
    batch, directions, length, channels = u.shape
    h = u.new_zeros(batch, directions, channels, A.shape[-1])
    boundaries = u.new_zeros(batch, directions, num_boundaries(length), *h.shape[2:])
    outputs = []
    for index, part in enumerate(_segments(length)):
        boundaries[:, :, index] = h.detach()
        states = _states(u[:, :, part], dt[:, :, part], A, B[:, :, part], h)
        outputs.append((states * C[:, :, part].unsqueeze(-2)).sum(-1))
        h = states[:, :, -1]
    return torch.cat(outputs, dim=2) + D.unsqueeze(-2) * u, boundaries


def recurrence_backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    boundaries: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, delta, A, B, C, D and delta_bias.

    States inside a segment are computed again from its boundary, so that memory beside inputs and
    outputs is one segment's states.
    """
    raw = delta + delta_bias.unsqueeze(-2)
    dt = F.softplus(raw)
    du, ddt = D.unsqueeze(-2) * dy, torch.zeros_like(dt)
    dA, dB, dC = torch.zeros_like(A), torch.zeros_like(B), torch.zeros_like(C)
    dh = torch.zeros_like(boundaries[:, :, 0])
    for index, part in reversed(list(enumerate(_segments(u.shape[2])))):
        u_, dt_, dy_ = u[:, :, part], dt[:, :, part], dy[:, :, part]
        h0 = boundaries[:, :, index]
        states = _states(u_, dt_, A, B[:, :, part], h0)
        previous = torch.cat([h0.unsqueeze(2), states[:, :, :-1]], dim=2)
        decays = torch.exp(dt_.unsqueeze(-1) * A.unsqueeze(-3))
        from_y = (dy_.unsqueeze(-1) * C[:, :, part].unsqueeze(-2)).unbind(2)
        adjoints = []
        for decay, direct in zip(reversed(decays.unbind(2)), reversed(from_y), strict=True):
            dh = dh + direct
            adjoints.append(dh)
            dh = decay * dh
        adjoint = torch.stack(adjoints[::-1], dim=2)
        d_log_decay = adjoint * previous * decays
        d_input = (adjoint * B[:, :, part].unsqueeze(-2)).sum(-1)
        dA += (d_log_decay * dt_.unsqueeze(-1)).sum((0, 2))
        dB[:, :, part] = (adjoint * (dt_ * u_).unsqueeze(-1)).sum(-2)
        dC[:, :, part] = (dy_.unsqueeze(-1) * states).sum(-2)
        ddt[:, :, part] = (d_log_decay * A.unsqueeze(-3)).sum(-1) + d_input * u_
        du[:, :, part] += d_input * dt_
    ddelta = ddt * torch.sigmoid(raw)
    return du, ddelta, dA, dB, dC, (dy * u).sum((0, 2)), ddelta.sum((0, 2))


def _segments(length: int) -> list[slice]:
    return [slice(s, min(s + SEGMENT, length)) for s in range(0, length, SEGMENT)]


def _states(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, h: Tensor) -> Tensor:
    """Return h after every token of one segment, (B, K, l, D, N)."""
    decays = torch.exp(dt.unsqueeze(-1) * A.unsqueeze(-3))
    increments = (dt * u).unsqueeze(-1) * B.unsqueeze(-2)
    states = []
    # unbind, not indexing: each index would make autograd allocate a full-size gradient.
    for decay, increment in zip(decays.unbind(2), increments.unbind(2), strict=True):
        h = decay * h + increment
        states.append(h)
    return torch.stack(states, dim=2)


selective_scan = partial(in_order.scan, recurrence)
selective_scan_backward = partial(in_order.scan_backward, recurrence, recurrence_backward)
causal_conv1d = in_order.causal_conv1d
causal_conv1d_backward = in_order.causal_conv1d_backward
