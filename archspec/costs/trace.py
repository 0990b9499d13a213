"""Run a network on the meta device: modules without memory, attention as the fused kernel."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import flop_registry

from archspec.costs.meta_kernels import MetaKernels
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from blocks.layers.fused_attention import FusedAttention as FusedAttention


def on_meta(planned: Plan, batch: int = 1) -> tuple[nn.Module, Tensor]:
    """Return the network and an input of it, without memory and without initial values."""
    with torch.device("meta"), _NoInit(), MetaKernels():
        net = build_plan(planned)
        x = torch.empty(batch, planned.in_channels, *planned.patch_size)
    return net, x


class ModulePaths:
    """Know, while entered, in which modules a network's forward pass is: `parents` has their paths.

    `Global` stands for the whole network. PyTorch's own tracker follows backward passes too, which
    takes twice as long as all else of a trace.
    """

    def __init__(self, net: nn.Module) -> None:
        self.parents = {"Global"}
        self._paths = {module: path or "Global" for path, module in net.named_modules()}

    def __enter__(self) -> Self:
        self._hooks = (
            register_module_forward_pre_hook(lambda module, _: self._enter(module)),
            register_module_forward_hook(lambda module, *_: self._leave(module)),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, module: nn.Module) -> None:
        self.parents.add(self._paths.get(module, "Global"))

    def _leave(self, module: nn.Module) -> None:
        self.parents -= {self._paths.get(module, "Global")} - {"Global"}


# The CPU's fused attention counts as the GPU's does. PyTorch before 2.15 has no formula for it: its
# own counter says nothing there, and is told too.
flop_registry.setdefault(
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    flop_registry[torch.ops.aten._scaled_dot_product_flash_attention],
)


_INITIALISERS: frozenset[Callable[..., Any]] = frozenset(
    value for name, value in vars(nn.init).items() if name.endswith("_") and callable(value)
)


class _NoInit(TorchFunctionMode):
    """Leave out the initial values of parameters, which a meta tensor cannot hold."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _INITIALISERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
