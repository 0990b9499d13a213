"""Memory of a training step, counted on the meta device: an estimate, and of what it is one.

The real modules run forward and backward on tensors without memory, while every storage that
PyTorch's allocator would hold is followed from its birth to its end. Left out: workspaces of
convolution algorithms, what backends of the scan hold inside one call, fragmentation, CUDA's own
context. Attention is the fused kernel, which keeps no matrix of scores.
"""

import weakref
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from archspec.costs.meta_kernels import MetaKernels, meta_result
from archspec.costs.trace import FusedAttention, ModulePaths, on_meta
from archspec.network.plan import Plan
from archspec.spec.training import Optimizer

OPTIMIZER_STATES: dict[Optimizer, int] = {"sgd": 1, "adam": 2, "adamw": 2}
"""Tensors that an optimiser keeps for every parameter: momentum; first and second moment."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one training step. `transient` is what comes on top at the worst moment of it.

    `saved_by_path` has the share of every module in what is saved for backward.
    """

    parameters: int
    gradients: int
    optimizer: int
    saved: int
    transient: int
    saved_by_path: dict[str, int] = field(repr=False, compare=False)

    @property
    def total(self) -> int:
        """Return the peak: parameters, optimiser, and the worst moment of forward and backward."""
        return self.parameters + self.optimizer + self.saved + self.transient


def saved_bytes(planned: Plan, *, batch: int = 1, amp: bool = False) -> int:
    """Return the bytes that a forward pass keeps for backward; parameters left out."""
    return saved_by_path(planned, batch=batch, amp=amp)["Global"]


def saved_by_path(planned: Plan, *, batch: int = 1, amp: bool = False) -> dict[str, int]:
    """Return the bytes kept for backward by module path, each storage where it is first kept.

    `Global` is the whole network.
    """
    net, x = on_meta(planned, batch)
    saved = _Saved(net)
    with (
        torch.enable_grad(),
        FusedAttention(),
        MetaKernels(),
        _Amp(amp),
        saved.hooks(),
        saved.paths,
    ):
        out = net(x)  # alive until the end: it holds what was saved
    del out
    return saved.by_path


def training_memory(
    planned: Plan, *, batch: int = 2, amp: bool = False, optimizer: Optimizer | None = None
) -> Memory:
    """Return the memory of one training step: forward, a loss over the logits, backward.

    `amp` runs what CUDA's autocast runs in half precision in half precision; the optimiser is the
    spec's unless given.
    """
    states = planned.spec.training.optimizer if optimizer is None else optimizer
    return module_memory(*on_meta(planned, batch), amp=amp, optimizer=states)


def module_memory(
    net: nn.Module, x: Tensor, *, amp: bool = False, optimizer: Optimizer = "sgd"
) -> Memory:
    """Return the memory of one training step of any module that lies on the meta device."""
    parameters = sum(p.untyped_storage().nbytes() for p in net.parameters())
    saved = _Saved(net)
    with torch.enable_grad(), FusedAttention(), _Live(x) as live:
        with _Amp(amp), saved.hooks(), saved.paths:
            logits = net(x)
        logits.float().logsumexp(1).mean().backward()
    return Memory(
        parameters=parameters,
        gradients=parameters,
        optimizer=OPTIMIZER_STATES[optimizer] * parameters,
        saved=saved.by_path["Global"],
        transient=live.peak - saved.by_path["Global"],
        saved_by_path=saved.by_path,
    )


class _Amp(TorchFunctionMode):
    """Cast as CUDA's autocast does, which meta tensors do not reach."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self._enabled = enabled

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        dtype = _AMP_DTYPES.get(func) if self._enabled else None
        if dtype is not None:
            args = tuple(_cast(value, dtype) for value in args)
            kwargs = {name: _cast(value, dtype) for name, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


# ATen/autocast_mode.h of torch 2.13 and 2.14. It lists more under float32 than the page "Automatic
# Mixed Precision package" does: every upsample_*, nearest too.
_AMP_DTYPES: dict[Any, torch.dtype] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), torch.float16),
    **dict.fromkeys((F.conv_transpose2d, F.conv_transpose3d), torch.float16),
    **dict.fromkeys((F.linear, torch.matmul, torch.Tensor.matmul, torch.bmm), torch.float16),
    **dict.fromkeys((F.scaled_dot_product_attention,), torch.float16),
    **dict.fromkeys(
        (F.layer_norm, F.group_norm, F.softmax, torch.exp, torch.softmax, F.interpolate),
        torch.float32,
    ),
    **dict.fromkeys((torch.pow, torch.Tensor.pow, torch.Tensor.__pow__), torch.float32),
}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class _Saved:
    """Sum the storages that autograd keeps, by module path, each where it is first kept."""

    def __init__(self, net: nn.Module) -> None:
        self.by_path = {"Global": 0}
        self.paths = ModulePaths(net)
        self._known = {p.untyped_storage()._cdata for p in net.parameters()}

    def hooks(self) -> AbstractContextManager[None]:
        return torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:  # the graph keeps it, so no address comes twice
            self._known.add(storage._cdata)
            for path in self.paths.parents:
                self.by_path[path] = self.by_path.get(path, 0) + storage.nbytes()
        return tensor


class _Live(MetaKernels):  # type: ignore[no-untyped-call]
    """Follow the bytes of x and of every storage made inside; `peak` is the most at once."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()
        self._follow(x.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = meta_result(func, args, kwargs or {})
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
