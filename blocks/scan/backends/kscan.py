"""The selective scan in pure PyTorch: the fallback on every device, with its own backward.

Time is cut into segments, a segment into chunks that run side by side: STEPS in-place steps give
every chunk's states from a zero start, then the chunks' carries are combined one after the other.
Only the states at the start of each 64 tokens are kept.

Legend: B batch, K directions, L tokens, D channels, N states; in a segment G chunks of T steps,
laid out (T, B, K, G, D[, N]). Everything is in scan order, in float32 or float64.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.backends import in_order
from blocks.scan.backends.in_order import SEGMENT, num_boundaries

STEPS = 16
CHUNKS = 16
_PER_BOUNDARY = SEGMENT // STEPS


def recurrence(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y (B, K, L, D) and the boundary states, as the reference does."""
    batch, directions, length, channels = u.shape
    h = u.new_zeros(batch, directions, channels, A.shape[-1])
    boundaries = u.new_zeros(batch, directions, num_boundaries(length), *h.shape[2:])
    y = torch.empty_like(u)
    for start in range(0, length, STEPS * CHUNKS):
        part = slice(start, min(start + STEPS * CHUNKS, length))
        dt = F.softplus(delta[:, :, part] + delta_bias.unsqueeze(-2))
        states, _, starts, h = _states(dt, u[:, :, part], A, B[:, :, part], h)
        first = start // SEGMENT
        kept = starts[:, :, ::_PER_BOUNDARY]
        boundaries[:, :, first : first + kept.shape[2]] = kept
        from_state = torch.matmul(states, _chunked(C[:, :, part]).unsqueeze(-1)).squeeze(-1)
        y[:, :, part] = _flat(from_state, u[:, :, part]) + D.unsqueeze(-2) * u[:, :, part]
    return y, boundaries


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
    """Return the gradients of u, delta, A, B, C, D and delta_bias."""
    du, ddelta = torch.empty_like(u), torch.empty_like(u)
    dA, dB, dC = torch.zeros_like(A), torch.empty_like(B), torch.empty_like(C)
    carry = torch.zeros_like(boundaries[:, :, 0])  # gradient of the state that leaves the segment
    for start in reversed(range(0, u.shape[2], STEPS * CHUNKS)):
        part = slice(start, min(start + STEPS * CHUNKS, u.shape[2]))
        raw = delta[:, :, part] + delta_bias.unsqueeze(-2)
        dt, u_ = F.softplus(raw), u[:, :, part]
        h = boundaries[:, :, start // SEGMENT]
        states, decays, starts, _ = _states(dt, u_, A, B[:, :, part], h)
        dy_, dt_, u_chunks = _chunked(dy[:, :, part]), _chunked(dt), _chunked(u_)
        B_, C_ = _chunked(B[:, :, part]), _chunked(C[:, :, part])
        dC[:, :, part] = _flat(torch.matmul(dy_.unsqueeze(-2), states).squeeze(-2), dC[:, :, part])
        adjoints, carry = _adjoints(dy_, C_, decays, carry)
        weighted = torch.matmul((dt_ * u_chunks).unsqueeze(-2), adjoints).squeeze(-2)
        dB[:, :, part] = _flat(weighted, dB[:, :, part])
        d_input = torch.matmul(adjoints, B_.unsqueeze(-1)).squeeze(-1)
        # From here on the adjoints become the gradient of dt A: adjoint * previous state * decay.
        adjoints.mul_(decays)
        adjoints[1:].mul_(states[:-1])
        adjoints[0].mul_(starts)
        dA += torch.einsum("tbkgdn,tbkgd->kdn", adjoints, dt_)
        ddt = (adjoints * A.unsqueeze(-3)).sum(-1).addcmul_(d_input, u_chunks)
        ddelta[:, :, part] = _flat(ddt, raw) * torch.sigmoid(raw)
        du[:, :, part] = _flat(d_input * dt_, u_) + D.unsqueeze(-2) * dy[:, :, part]
    return du, ddelta, dA, dB, dC, (dy * u).sum((0, 2)), ddelta.sum((0, 2))


def _states(
    dt: Tensor, u: Tensor, A: Tensor, B: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run one segment of l tokens from state h (B, K, D, N).

    Returns the states and decays (T, B, K, G, D, N), the state before each chunk (B, K, G, D, N),
    and the state after the segment.
    """
    dt_ = _chunked(dt)
    decays = torch.exp(dt_.unsqueeze(-1) * A.unsqueeze(-3))
    states = (dt_ * _chunked(u)).unsqueeze(-1) * _chunked(B).unsqueeze(-2)
    for step in range(1, STEPS):
        states[step].addcmul_(decays[step], states[step - 1])
    since_start = torch.cumprod(decays, dim=0)
    starts = []
    for end, decay in zip(states[-1].unbind(2), since_start[-1].unbind(2), strict=True):
        starts.append(h)
        h = torch.addcmul(end, decay, h)
    before = torch.stack(starts, dim=2)
    return states.addcmul_(since_start, before), decays, before, h


def _adjoints(dy: Tensor, C: Tensor, decays: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of every state of a segment, and of the state before the segment.

    `carry` (B, K, D, N) is the gradient of the segment's last state from what comes after.
    """
    adjoints = dy.unsqueeze(-1) * C.unsqueeze(-2)
    to_end = torch.ones_like(decays)
    for step in reversed(range(STEPS - 1)):
        adjoints[step].addcmul_(decays[step + 1], adjoints[step + 1])
        torch.mul(decays[step + 1], to_end[step + 1], out=to_end[step])
    first = (adjoints[0].unbind(2), to_end[0].unbind(2), decays[0].unbind(2))
    carries = []
    for adjoint, decay, entry in reversed(list(zip(*first, strict=True))):
        carries.append(carry)
        carry = entry * torch.addcmul(adjoint, decay, carry)
    return adjoints.addcmul_(to_end, torch.stack(carries[::-1], dim=2)), carry


def _chunked(x: Tensor) -> Tensor:
    """Cut (B, K, l, X) into chunks, (T, B, K, G, X); zeros fill the last, so no state changes."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % STEPS))
    chunks = x.view(*x.shape[:2], -1, STEPS, x.shape[3])
    return chunks.movedim(3, 0).contiguous()


def _flat(x: Tensor, like: Tensor) -> Tensor:
    """Undo `_chunked`, to the length of `like`."""
    return x.movedim(0, 3).flatten(2, 3)[:, :, : like.shape[2]]


selective_scan = partial(in_order.scan, recurrence)
selective_scan_backward = partial(in_order.scan_backward, recurrence, recurrence_backward)
causal_conv1d = in_order.causal_conv1d
causal_conv1d_backward = in_order.causal_conv1d_backward
