"""The scans that `scan_gpu` compares: ours, and mamba-ssm's kernel fed in two ways."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.orders import order_index

STATES = 16


class Ours(torch.autograd.Function):
    """The backend's two functions as one differentiable call."""

    @staticmethod
    def forward(ctx: Any, orders: tuple[int, ...], *inputs: Tensor) -> Tensor:
        from blocks.scan.backends import triton_backend

        out, boundaries = triton_backend.selective_scan(*inputs, orders)
        ctx.save_for_backward(*inputs, boundaries)
        ctx.orders = orders
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        from blocks.scan.backends import triton_backend

        return None, *triton_backend.selective_scan_backward(grad, *ctx.saved_tensors, ctx.orders)


class Upstream(torch.autograd.Function):
    """mamba-ssm's two kernels as its own `selective_scan_fn` calls them, softplus on."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        bias: Tensor,
        z: Tensor | None,
    ) -> Tensor:
        out, x, *gated = kernel.fwd(u, delta, A, B, C, D, z, bias, True)
        ctx.kernel = kernel
        ctx.save_for_backward(u, delta, A, B, C, D, z, bias, x, None if z is None else out)
        return out if z is None else gated[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        u, delta, A, B, C, D, z, bias, x, out = ctx.saved_tensors
        du, ddelta, dA, dB, dC, dD, dbias, *dz = ctx.kernel.bwd(
            u, delta, A, B, C, D, z, bias, grad.contiguous(), x, out, None, True, False
        )
        return None, du, ddelta, dA, dB, dC, dD, dbias, None if z is None else dz[0]


def permute(tokens: Tensor, order: int) -> Tensor:
    """Bring (B, D, L) into scan order as the fork does: flip, or chunk and stack."""
    if order == -1:
        return tokens.flip(-1)
    if order == 1:
        return tokens
    return tokens.unflatten(-1, (order, -1)).transpose(-1, -2).flatten(-2)


def permute_back(tokens: Tensor, order: int) -> Tensor:
    """Bring (B, D, L) from scan order into token order."""
    if order in (1, -1):
        return permute(tokens, order)
    return permute(tokens, tokens.shape[-1] // order)


def make_runs(
    edge: int, channels: int, kernel: Any, device: str
) -> tuple[dict[str, tuple[Callable[[], Tensor], list[Tensor]]], Tensor]:
    """Return each variant's forward pass with its leaves, and a gradient of the output.

    Edge 0 stands for 130 tokens: three segments, of which the last is cut short.
    """
    torch.manual_seed(0)
    length, orders = (edge**3, (1, -1, edge)) if edge else (130, (1, -1, 13))
    k = len(orders)
    low = {"device": device, "dtype": torch.bfloat16}
    u = torch.randn(1, k, length, channels, **low)
    delta = torch.randn(1, k, length, channels, **low)
    A = -torch.arange(1.0, STATES + 1, device=device).expand(k, channels, STATES).contiguous()
    B, C = (torch.randn(1, k, length, STATES, **low) for _ in range(2))
    D = torch.ones(k, channels, device=device)
    bias = torch.full((k, channels), -4.0, device=device)
    z = torch.randn(1, length, channels, **low)
    ours = [t.requires_grad_() for t in (u, delta, A, B, C, D, bias, z)]
    runs = {"ours": (lambda: Ours.apply(orders, *ours), ours)}
    grad = torch.randn(1, length, channels, **low)
    if kernel is None:
        return runs, grad
    rows = [order_index(order, length, u.device) for order in orders]

    def in_order(tokens: Tensor) -> list[Tensor]:
        return [tokens.detach()[:, i, row].mT.contiguous() for i, row in enumerate(rows)]

    first = [t.mT.contiguous() for t in u.detach().unbind(1)]
    given = [in_order(t) for t in (delta, B, C)]
    small = [t.detach().clone() for t in (A, D, bias)]
    fork = [*first, *given[0], *given[1], *given[2], *small, z.detach().mT.contiguous()]
    fork = [t.requires_grad_() for t in fork]

    def run_fork() -> Tensor:
        total: Tensor | float = 0.0
        u_, delta_, B_, C_ = (fork[i * k : (i + 1) * k] for i in range(4))
        A_, D_, bias_, z_ = fork[4 * k :]
        for i, order in enumerate(orders):
            found = Upstream.apply(
                *(kernel, permute(u_[i], order), delta_[i], A_[i], B_[i].unsqueeze(1)),
                *(C_[i].unsqueeze(1), D_[i], bias_[i], permute(z_, order)),
            )
            total = permute_back(found, order) + total
        return total.mT  # type: ignore[union-attr]

    runs["fork"] = (run_fork, fork)
    index = torch.stack(rows)[None, :, None]
    back = torch.stack([row.argsort() for row in rows])[None, :, None]
    cross = [torch.stack(first, 1), torch.cat(given[0], 1), A.detach().flatten(0, 1)]
    cross += [torch.stack(given[1], 1), torch.stack(given[2], 1), D.detach().flatten()]
    cross += [bias.detach().flatten(), z.detach().mT.contiguous()]
    cross = [t.clone().requires_grad_() for t in cross]

    def run_cross() -> Tensor:
        u_, *rest, z_ = cross
        gathered = u_.gather(-1, index.expand_as(u_)).flatten(1, 2)
        found = Upstream.apply(kernel, gathered, *rest, None).unflatten(1, (k, -1))
        total = found.gather(-1, back.expand_as(found)).sum(1)
        return (total * F.silu(z_)).mT

    runs["cross"] = (run_cross, cross)
    return runs, grad
