"""Optimizer steps in the precision that the device is made for."""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.spec.training import TrainingSpec
from archspec.training.average import averaged
from archspec.training.recipe import build_optimizer, clip_gradients, set_rate

Batch = tuple[Tensor, Tensor | list[Tensor]]
"""Images (B, C, *patch), and the labels: one tensor, or one per output."""


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return what AMP computes in: bfloat16, float16 where a GPU only emulates that, None on a CPU.

    GPUs before Ampere (V100, T4) emulate bfloat16. The scan keeps its state in float32 anyway.
    """
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


class Stepper:
    """A network and its recipe's optimizer; float16 has its gradients scaled.

    With `average` the mean of the weights over the last steps is kept: `scored` is the network with
    them, and else the one that trains.
    """

    def __init__(
        self,
        net: nn.Module,
        recipe: TrainingSpec,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        average: bool = False,
    ) -> None:
        self._net = net
        self._recipe = recipe
        self._device = device
        self._dtype = dtype
        self._optimizer = build_optimizer(net, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self._averaged = averaged(net) if average else None
        self.scored: nn.Module = net if self._averaged is None else self._averaged.module

    def step(self, loss_of: nn.Module, batch: Batch, number: int, total: int) -> Tensor:
        """Take step `number` of `total` and return its loss, on the device: none waits for it."""
        images, target = (_moved(part, self._device) for part in batch)
        set_rate(self._optimizer, self._recipe, number, total)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            loss: Tensor = loss_of(self._net(images), target)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)  # the recipe's norm is that of the true gradient
        clip_gradients(self._net, self._recipe)
        self._scaler.step(self._optimizer)  # left out where a scaled gradient overflowed
        self._scaler.update()
        if self._averaged is not None:
            self._averaged.update_parameters(self._net)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "net": self._net.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        if self._averaged is not None:
            state["averaged"] = self._averaged.module.state_dict()
            state["averaged_steps"] = int(self._averaged.n_averaged)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the scale of another precision, or none, is left out.

        Raises:
            KeyError: a part is missing, say the mean of the weights; nothing was loaded.
        """
        missing = [name for name in self.state_dict() if name not in state and name != "scaler"]
        if missing:
            raise KeyError(missing[0])
        if self._averaged is not None:
            self._averaged.module.load_state_dict(state["averaged"])
            self._averaged.n_averaged.fill_(state["averaged_steps"])
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scaler.is_enabled() and state.get("scaler"):
            self._scaler.load_state_dict(state["scaler"])


def _moved(part: Tensor | list[Tensor], device: torch.device) -> Any:
    """Copy to the device, without waiting: from page-locked memory where that is a GPU."""
    if isinstance(part, list):
        return [_moved(one, device) for one in part]
    if device.type == "cuda" and part.device.type == "cpu" and not part.is_pinned():
        part = part.pin_memory()
    return part.to(device, non_blocking=True)
