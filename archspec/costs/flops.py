"""What a network costs, counted by tracing its real modules on the meta device.

Convention v1: `flops = 2 * macs + scan_flops` for one forward pass at batch 1. `macs` are the
multiply-adds of convolutions, transposed convolutions, linear layers and attention products
(attention as the fused kernel runs it, which keeps no matrix of scores for backward);
`scan_flops` are 9 B L D N per selective scan, + B L D for its skip and again for its gate.
Norms, activations and interpolation are not counted.

The trace runs without autograd, and what is not counted only passes its shape on, so that a search
can ask for thousands of costs; `archspec.costs.memory` traces again, with autograd, for bytes.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import flop_registry

from archspec.costs.memory import saved_bytes
from archspec.costs.meta_kernels import MetaKernels, meta_result
from archspec.costs.trace import FusedAttention, ModulePaths, on_meta
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.load import SpecLike
from blocks.base import Grid

CONVENTION = "convention v1"
KINDS = ("conv", "transposed_conv", "linear", "causal_conv1d", "attention", "scan")
"""Kinds of counted operations; depthwise convolutions are `conv`."""


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass at batch 1.

    `by_kind` has the multiply-adds of every kind of operation, and for `scan` its FLOPs.
    """

    params: int
    macs: int
    scan_flops: int
    by_kind: dict[str, int]
    by_path: dict[str, "PathCost"]
    planned: Plan = field(repr=False, compare=False)

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.scan_flops

    @cached_property
    def activation_bytes(self) -> int:
        """Return what backward needs, in float32: storages counted once, parameters left out.

        Traced when first asked for.
        """
        return saved_bytes(self.planned)


@dataclass(frozen=True, slots=True)
class PathCost:
    """The share of one module, by its path in the network; `by_kind` as in `Cost`."""

    params: int
    macs: int
    scan_flops: int
    by_kind: dict[str, int] = field(default_factory=dict)

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
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    return cost_plan(resolve(spec, sizes))


def cost_plan(planned: Plan) -> Cost:
    """Return the cost of the planned network."""
    net, x = on_meta(planned)
    with ModulePaths(net) as paths, torch.no_grad(), _Counter(paths) as counter, _ShapesOnly():
        net(x)
    by_path = _by_path(net, counter.counts)
    whole = by_path.pop("")
    return Cost(whole.params, whole.macs, whole.scan_flops, whole.by_kind, by_path, planned)


class _ShapesOnly(FusedAttention):
    """Let norms, activations, interpolation only pass on the shape: their meta kernels are slow."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _SAME_SHAPE and args:
            return args[0]
        size = (kwargs or {}).get("size")
        if func is F.interpolate and args and isinstance(size, tuple | list):
            return args[0].new_empty(*args[0].shape[:2], *size)
        return super().__torch_function__(func, types, args, kwargs)


_SAME_SHAPE = frozenset(
    {F.layer_norm, F.instance_norm, F.batch_norm, F.group_norm}
    | {F.gelu, F.relu, F.leaky_relu, F.silu, F.dropout}
)


class _Counter(MetaKernels):  # type: ignore[no-untyped-call]
    """Count operations by module and kind, with PyTorch's registered formulas."""

    def __init__(self, paths: ModulePaths) -> None:
        super().__init__()
        self.counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._paths = paths

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = meta_result(func, args, kwargs or {})
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **(kwargs or {}), out_val=out)
            kind = _kind(func, args)
            for path in self._paths.parents:
                self.counts[path][kind] += flops
        return out


def _kind(func: Any, args: Any) -> str:
    name = str(func._overloadpacket)
    if name == "archspec.selective_scan":
        return "scan"
    if name == "archspec.causal_conv1d":
        return "causal_conv1d"
    if name == "aten.convolution":
        return "transposed_conv" if args[6] else "conv"
    return "attention" if "attention" in name else "linear"


def _by_path(net: nn.Module, counts: dict[str, dict[str, int]]) -> dict[str, PathCost]:
    """Return costs by module path; the whole network is ''."""
    by_path: dict[str, PathCost] = {}
    for path, module in reversed(list(net.named_modules())):
        kinds = counts.get(path or "Global", {})
        by_kind = {kind: kinds.get(kind, 0) // (1 if kind == "scan" else 2) for kind in KINDS}
        if isinstance(module, nn.ModuleList):  # is never called itself
            parts = [by_path[f"{path}.{name}"].by_kind for name, _ in module.named_children()]
            by_kind = {kind: sum(part[kind] for part in parts) for kind in KINDS}
        params = sum(p.numel() for p in module.parameters())
        macs = sum(count for kind, count in by_kind.items() if kind != "scan")
        by_path[path] = PathCost(params, macs, by_kind["scan"], by_kind)
    return dict(reversed(by_path.items()))
