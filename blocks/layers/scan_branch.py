"""One direction of a Mamba layer: causal convolution and the input-dependent scan parameters."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.scan.op import selective_scan
from blocks.scan.orders import order_index


class ScanBranch(nn.Module):
    """Turn (B, L, D) tokens into what the selective scan of one direction needs.

    Source: Mamba, arXiv 2312.00752, section 3.4; github.com/state-spaces/mamba@e9594ce,
    mamba_ssm/modules/mamba_simple.py, with its initialisation.
    """

    def __init__(self, channels: int, *, d_state: int, d_conv: int, dt_rank: int) -> None:
        super().__init__()
        self.d_state = d_state
        self.dt_rank = dt_rank
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels, padding=d_conv - 1)
        self.x_proj = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1.0).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self._init_dt()

    def _init_dt(self) -> None:
        """Start with time steps spread log-uniformly over [0.001, 0.1]."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        low, high = math.log(1e-3), math.log(1e-1)
        dt = torch.exp(torch.rand(self.D.shape) * (high - low) + low).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return u (B, L, D), delta (B, L, D) before bias and softplus, B and C (B, L, N).

        The causal convolution runs in scan order; what is returned is in token order again.
        """
        length = x.shape[1]
        rows = order_index(order, length, x.device)
        u = self.conv1d(x[:, rows].transpose(1, 2))[..., :length].transpose(1, 2)
        u = F.silu(u[:, rows.argsort()])
        ranks = (self.dt_rank, self.d_state, self.d_state)
        dt, B, C = self.x_proj(u).split(ranks, dim=-1)
        return u, F.linear(dt, self.dt_proj.weight), B, C


def scan_branches(branches: nn.ModuleList, x: Tensor, z: Tensor, orders: Sequence[int]) -> Tensor:
    """Scan x by every branch in its order, add the results, gate by z: (B, L, D) -> same."""
    found = [branch for branch in branches if isinstance(branch, ScanBranch)]
    wide = torch.promote_types(found[0].A_log.dtype, torch.float32)
    inputs = [branch(x, order) for branch, order in zip(found, orders, strict=True)]
    u, delta, B, C = (torch.stack(parts, dim=1) for parts in zip(*inputs, strict=True))
    return selective_scan(
        u,
        delta,
        -torch.exp(torch.stack([branch.A_log for branch in found]).to(wide)),
        B,
        C,
        torch.stack([branch.D for branch in found]),
        torch.stack([branch.dt_proj.bias for branch in found]),
        z,
        orders,
    )
