"""FUE: feature-level uncertainty estimation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FUE(nn.Module):
    """Compute z + z (1 - u) with u = -p log p and p = sigmoid(mean of z over channels).

    (B, C, *grid) -> same; no parameters. u is in (0, 1/e]. log p is taken by logsigmoid, in float32
    or wider, so that p -> 0 gives u -> 0 and not NaN.

    Source: SegMamba, arXiv 2401.13560, section 2.3; absent from the released code.
    """

    def forward(self, z: Tensor) -> Tensor:
        u = uncertainty(z).to(z.dtype)
        return z + z * (1 - u)


def uncertainty(z: Tensor) -> Tensor:
    """Return u, (B, 1, *grid), in float32 or wider."""
    wide = torch.promote_types(z.dtype, torch.float32)
    log_p = F.logsigmoid(z.mean(1, keepdim=True, dtype=wide))
    return -log_p.exp() * log_p
