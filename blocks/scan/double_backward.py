"""Gradients of gradients, by autograd through a differentiable implementation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def differentiate_backward(
    forward: Callable[..., Tensor],
    grad: Tensor,
    tensors: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `grad` and `tensors`, given those of what backward returned.

    `forward(*tensors)` is differentiable twice; backward returned one gradient per tensor, and
    anything where the tensor is None.
    """
    with torch.enable_grad():
        leaf_grad = grad.detach().requires_grad_()
        leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
        present = [leaf for leaf in leaves if leaf is not None]
        out = forward(*leaves)
        grads = torch.autograd.grad(out, present, leaf_grad.to(out.dtype), create_graph=True)
    wanted = [c for c, t in zip(cotangents, tensors, strict=True) if t is not None]
    pairs = [(g, c) for g, c in zip(grads, wanted, strict=True) if c is not None]
    found = iter(
        torch.autograd.grad(
            [g for g, _ in pairs],
            [leaf_grad, *present],
            [c for _, c in pairs],
            materialize_grads=True,
        )
    )
    return (next(found), *(None if leaf is None else next(found) for leaf in leaves))
