"""Train a network on one patch until it has learnt it by heart: the first check of any network."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.start_weights import load_start_weights
from archspec.nnunet.loss import loss_without_trainer, output_weights
from archspec.overfit.cap import Cap, head_grid, resolution_cap
from archspec.overfit.gradients import (
    Norms,
    direction_norms,
    gradient_not_finite,
    where_not_finite,
    without_gradient,
)
from archspec.overfit.patch import FixedPatch, Target, mean_dice
from archspec.overfit.result import SHARE, Overfit
from archspec.spec.plugins import refuse_scripted
from archspec.training.devices import timed_convolutions

RATE = 2e-3
WARMUP = 20
CLIP = 1.0
RECIPE = f"AdamW, rate {RATE:g} after {WARMUP} steps of warm-up, no weight decay, clip {CLIP:g}"


@dataclass(frozen=True, slots=True)
class Step:
    """What is known after a step: the loss, and the Dice in training mode (mean, foreground)."""

    number: int
    loss: float
    dice: float
    seconds: float


def overfit(
    planned: Plan,
    patch: FixedPatch,
    *,
    steps: int = 2000,
    minutes: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[Step, Cap], None] | None = None,
) -> Overfit:
    """Train on the patch alone, unaugmented, until the Dice is 0.99 of what the head allows.

    The recipe is the same for all networks, `RECIPE`, and not the spec's: that is made for many
    epochs of many patches, and would say more about itself than about the network. The loss is
    nnU-Net's over all its outputs. Ends early if loss or gradient is not finite.

    Raises:
        SpecError: the network has a component of this script alone, which nnU-Net would not have,
            or its pretrained weights do not come.
    """
    refuse_scripted("nnU-Net's processes", planned.spec)
    torch.manual_seed(seed)
    target = patch.target.to(torch.device(device))
    cap = resolution_cap(target, head_grid(planned), padded_size=planned.padded_size)
    net = build_plan(planned).to(device)
    load_start_weights(net)
    # one patch is no batch to batch norm where the coarsest grid has one position
    copies = 2 if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()) else 1
    image = patch.image.to(device).expand(copies, *patch.image.shape)
    loss_of = nnunet_loss(planned, target, copies)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.0)
    started, number, failure = time.monotonic(), 0, None
    scores = dict.fromkeys(target.present, 0.0)
    first: Norms = {}
    silent: set[str] = set()
    shrunk = 1.0  # by how much clipping divided the gradients that are left
    with timed_convolutions(torch.device(device)):
        while number < steps and (minutes is None or time.monotonic() - started < 60 * minutes):
            number, shrunk = number + 1, 1.0
            outputs, loss = _backward(net, image, loss_of)
            failure = _failure(net, image, number, loss)
            if failure is not None:
                break
            if number == 1:
                first, silent = direction_norms(net), set(without_gradient(net))
            found = mean_dice(target.dice(outputs[0]))
            if on_step is not None:
                on_step(Step(number, loss, found, time.monotonic() - started), cap)
            if found >= SHARE * cap.mean > 0:  # these weights, before the update, are evaluated
                scores = max(scores, _evaluate(net, image, target), key=mean_dice)
                if mean_dice(scores) >= SHARE * cap.mean:
                    break
            shrunk = max(float(nn.utils.clip_grad_norm_(net.parameters(), CLIP)) / CLIP, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(number / WARMUP, 1.0)
            optimizer.step()
        else:
            scores = max(scores, _evaluate(net, image, target), key=mean_dice)
    return Overfit(
        name=planned.spec.name,
        dataset=patch.dataset,
        case=patch.case,
        patch=(planned.in_channels, *planned.patch_size),
        start=patch.start,
        cap=cap,
        scores=scores,
        steps=number,
        seconds=time.monotonic() - started,
        failure=failure,
        first=first,
        last=_scaled(direction_norms(net), shrunk) if number else {},
        silent=tuple(name for name in without_gradient(net) if name in silent - _unweighted(net)),
        unweighted_head=_unweighted_head(planned),
        recipe=RECIPE,
        seed=seed,
        device=str(device),
    )


def _unweighted(net: Any) -> set[str]:
    """Return the names of the parameters of heads whose outputs nnU-Net's loss weighs 0."""
    heads = zip(output_weights(len(net.decoder.seg_layers)), net.decoder.seg_layers, strict=True)
    owned = {id(p) for weight, head in heads if weight == 0 for p in head.parameters()}
    return {name for name, parameter in net.named_parameters() if id(parameter) in owned}


def _unweighted_head(planned: Plan) -> str | None:
    """Return the path of the head whose output nnU-Net's loss weighs 0, the coarsest of several."""
    weights = enumerate(output_weights(len(planned.output_grids)))
    return next((f"decoder.seg_layers.{i}" for i, weight in weights if weight == 0), None)


def _scaled(norms: Norms, factor: float) -> Norms:
    return {
        path: {name: norm * factor for name, norm in found.items()} for path, found in norms.items()
    }


def nnunet_loss(planned: Plan, target: Target, copies: int) -> Callable[[list[Tensor]], Tensor]:
    """Return nnU-Net's loss of all outputs, with its weights and its downsampled targets.

    Source of the targets: batchgeneratorsv2, `DownsampleSegForDSTransform`.
    """
    grids = planned.output_grids
    ignoring = not bool(target.valid.all())
    if target.exclusive:
        classes = target.wanted.long().argmax(0).masked_fill(~target.valid, len(target.wanted))
        label = classes[None]
    else:
        label = torch.cat([target.wanted, ~target.valid[None]][: 1 + ignoring])
    loss = loss_without_trainer(
        has_regions=not target.exclusive,
        ignore_label=len(target.wanted) if ignoring else None,
        batch_dice=False,
        num_outputs=len(grids) if len(grids) > 1 else None,
    )
    full = label[None].float()
    targets = [
        F.interpolate(full, grid, mode="nearest-exact").expand(copies, *label.shape[:1], *grid)
        for grid in grids
    ]
    if target.exclusive:
        targets = [label.long() for label in targets]

    def total(outputs: list[Tensor]) -> Tensor:
        several = len(grids) > 1
        found: Tensor = loss(outputs, targets) if several else loss(outputs[0], targets[0])
        return found

    return total


def _backward(
    net: Any, image: Tensor, loss_of: Callable[[list[Tensor]], Tensor]
) -> tuple[list[Tensor], float]:
    """Run one training pass; return the first sample's outputs and the loss."""
    net.train()
    heads = len(net.decoder.seg_layers)
    net.decoder.deep_supervision = heads > 1
    outputs = net(image)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    loss = loss_of(outputs)
    net.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    net.decoder.deep_supervision = False
    return [out[0].detach() for out in outputs], float(loss.detach())


def _evaluate(net: nn.Module, image: Tensor, target: Target) -> dict[str, float]:
    net.eval()
    with torch.no_grad():
        return target.dice(net(image)[0])


def _failure(net: nn.Module, image: Tensor, number: int, loss: float) -> str | None:
    if not math.isfinite(loss):
        return f"step {number}: the loss is {loss}; {where_not_finite(net, image)}"
    lost = gradient_not_finite(net)
    return None if lost is None else f"step {number}: the gradient of {lost} is not finite"
