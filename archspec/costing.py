"""What a network costs, counted by tracing its real modules on the meta device.

Convention v1: `flops = 2 * macs + scan_flops` for one forward pass at batch 1. `macs` are the
multiply-adds of convolutions, transposed convolutions, linear layers and attention products
(attention as the fused kernel runs it, which keeps no matrix of scores for backward);
`scan_flops` are 9 B L D N per selective scan, + B L D for its skip and again for its gate.
Norms, activations and interpolation are not counted.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from archspec.building import build_plan
from archspec.loading import SpecLike
from archspec.planning import Plan
from archspec.resolving import resolve
from blocks.base import Grid

CONVENTION = "convention v1"
_SCAN = "archspec.selective_scan"


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one forward pass at batch 1; `activation_bytes` is what backward needs, in float32.

    The bytes are an estimate: counted on meta, each storage once, parameters left out.
    """

    params: int
    macs: int
    scan_flops: int
    activation_bytes: int
    by_path: dict[str, "PathCost"]

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.scan_flops


@dataclass(frozen=True, slots=True)
class PathCost:
    """The share of one module, by its path in the network."""

    params: int
    macs: int
    scan_flops: int

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.scan_flops


def cost(
    spec: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> Cost:
    """Return the cost of the network that `build` would make, without allocating it.

    Raises:
        SpecError: the spec is wrong, or does not fit the sizes.
    """
    return cost_plan(
        resolve(spec, in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    )


def cost_plan(planned: Plan) -> Cost:
    """Return the cost of the planned network."""
    saved: dict[Any, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            saved[storage._cdata] = storage.nbytes()
            kept.append(tensor)
        return tensor

    kept: list[torch.Tensor] = []  # alive until the end, so that no storage's address is reused
    with torch.device("meta"):
        net = build_plan(planned)
        x = torch.empty(1, planned.in_channels, *planned.patch_size)
    parameters = {p.untyped_storage()._cdata for p in net.parameters()}
    with (
        torch.enable_grad(),
        _FusedAttention(),
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        out = net(x)
    del out
    by_path = _by_path(net, counter.get_flop_counts())
    whole = by_path.pop("")
    return Cost(
        params=whole.params,
        macs=whole.macs,
        scan_flops=whole.scan_flops,
        activation_bytes=sum(size for key, size in saved.items() if key not in parameters),
        by_path=by_path,
    )


class _FusedAttention(TorchFunctionMode):
    """Trace attention as the fused kernel: on meta, PyTorch would take the unfused formula."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            return fused(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def _by_path(net: torch.nn.Module, counts: dict[str, dict[Any, int]]) -> dict[str, PathCost]:
    """Return costs by module path; the whole network is ''."""
    by_path: dict[str, PathCost] = {}
    for path, module in reversed(list(net.named_modules())):
        key = f"{type(net).__name__}.{path}" if path else "Global"
        ops = counts.get(key, {})
        scan = sum(n for op, n in ops.items() if str(op).startswith(_SCAN))
        macs = (sum(ops.values()) - scan) // 2
        if isinstance(module, torch.nn.ModuleList):  # is never called itself
            parts = [by_path[f"{path}.{name}"] for name, _ in module.named_children()]
            macs, scan = sum(p.macs for p in parts), sum(p.scan_flops for p in parts)
        by_path[path] = PathCost(sum(p.numel() for p in module.parameters()), macs, scan)
    return dict(reversed(by_path.items()))
