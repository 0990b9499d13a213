"""The directions of a Mamba layer: causal convolution, input-dependent parameters, scan."""

import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from blocks.scan.causal_conv import causal_conv1d
from blocks.scan.op import selective_scan


class ScanSizes(Protocol):
    """What the spec of a mixer that scans says of its sizes."""

    @property
    def d_state(self) -> int: ...
    @property
    def d_conv(self) -> int: ...
    @property
    def expand(self) -> int: ...


def scan_elements(sizes: ScanSizes, channels: int, tokens: int, *, directions: int) -> int:
    """Return the elements of the largest tensor: a weight, tokens, or states that a scan keeps.

    What the directions have alike is stacked.
    """
    inner, rank = sizes.expand * channels, math.ceil(channels / 16)
    projected = rank + 2 * sizes.d_state
    weight = inner * max(2 * channels, directions * max(projected, sizes.d_conv))
    features = tokens * max(2 * inner, directions * max(inner, projected))
    states = directions * max(2, math.ceil(tokens / 64)) * inner * sizes.d_state
    return max(weight, features, states)


class ScanBranch(nn.Module):
    """Parameters of one direction; `scan_branches` runs all directions of a mixer at once.

    Source: Mamba, arXiv 2312.00752, section 3.4; github.com/state-spaces/mamba@e9594ce,
    mamba_ssm/modules/mamba_simple.py, with its initialisation.
    """

    keeps_start: ClassVar[bool] = True  # they set time steps
    spared_from_decay: ClassVar[frozenset[str]] = frozenset({"A_log", "D"})

    def __init__(self, channels: int, *, d_state: int, d_conv: int, dt_rank: int) -> None:
        super().__init__()
        self.d_state = d_state
        self.dt_rank = dt_rank
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
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


def scan_branches(branches: nn.ModuleList, x: Tensor, z: Tensor, orders: Sequence[int]) -> Tensor:
    """Scan x by every branch in its order, add the results, gate by z: (B, L, D) -> same.

    All branches run in one call of each operator; the sequence is never copied in another order.
    """
    found = [branch for branch in branches if isinstance(branch, ScanBranch)]
    projections, (conv, conv_bias, A_log, D, dt_bias) = _stacked(
        [
            [branch.x_proj.weight for branch in found],
            [branch.dt_proj.weight for branch in found],
        ],
        [
            [branch.conv1d.weight.squeeze(1) for branch in found],
            [_bias(branch.conv1d) for branch in found],
            [branch.A_log for branch in found],
            [branch.D for branch in found],
            [_bias(branch.dt_proj) for branch in found],
        ],
        low=x.dtype,
    )
    u = causal_conv1d(x, conv, conv_bias, orders)
    x_proj, dt_proj = (weight.mT for weight in projections)
    ranks = [found[0].dt_rank, found[0].d_state, found[0].d_state]
    dt, B, C = torch.split(torch.matmul(u, x_proj), ranks, dim=-1)
    delta = torch.matmul(dt, dt_proj)
    wide = torch.promote_types(A_log.dtype, torch.float32)
    return selective_scan(u, delta, -torch.exp(A_log.to(wide)), B, C, D, dt_bias, z, orders)


def _stacked(
    projections: list[list[Tensor]], others: list[list[Tensor]], *, low: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Stack each list of the branches' parameters, the projections in `low`, as autocast would.

    One copy makes all stacks and one casts both projections, since on a GPU a launch costs more
    than what it moves; forward and backward, each tensor alone would need dozens.
    """
    kinds = [*projections, *others]
    if len({t.dtype for kind in kinds for t in kind}) > 1:
        return [torch.stack(kind) for kind in projections], [torch.stack(kind) for kind in others]
    flat = torch.cat([t.reshape(-1) for kind in kinds for t in kind])
    sizes = [sum(t.numel() for t in kind) for kind in kinds]
    count = len(projections)
    multiplied, *parts = torch.split(flat, [sum(sizes[:count]), *sizes[count:]])
    parts = [*torch.split(multiplied.to(low), sizes[:count]), *parts]
    stacks = [part.view(len(kind), *kind[0].shape) for part, kind in zip(parts, kinds, strict=True)]
    return stacks[:count], stacks[count:]


def _bias(layer: nn.Conv1d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias
