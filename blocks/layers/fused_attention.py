"""Attention as the fused kernel, on the meta device too."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FusedAttention(TorchFunctionMode):
    """Trace attention as the fused kernel: on meta, PyTorch would take the unfused formula."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            found = _fused(*args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Return what the CPU's fused kernel gives; None for what it does not take."""
    if enable_gqa or query.ndim != 4 or (attn_mask is not None and attn_mask.dtype == torch.bool):
        return None
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out: Tensor = op(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return out
