"""Train one spec: optimizer steps in segments, each ending at a rung with a score and a file."""

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from archspec.building import build_plan
from archspec.planning import Plan
from archspec.recipe import build_optimizer, clip_gradients, set_rate
from search.data import TrialData

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class TrialTask:
    """What a worker needs to train one trial; a checkpoint in its folder is gone on from."""

    number: int
    tree: dict[str, Any]
    folder: Path
    seed: int
    steps: int
    rungs: int


@dataclass(frozen=True)
class Rung:
    """A score on the way: `scores` are Dice by class and group, and their `mean`."""

    step: int
    scores: dict[str, float]
    loss: float
    seconds: float


class DivergedError(RuntimeError):
    """The loss is not a number."""


def train(
    task: TrialTask,
    planned: Plan,
    data: TrialData,
    device: torch.device,
    report: Callable[[Rung], None],
) -> Rung:
    """Train, report every rung, and return the last one.

    A checkpoint is written before a rung is reported, so what was reported is never trained again.
    Random numbers depend on the seed and the segment alone: a resumed trial sees the same batches
    as one that was never cut off.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    seed_everything(task.seed)
    net = build_plan(planned).to(device)
    deep_supervision = planned.spec.deep_supervision.heads > 1
    optimizer = build_optimizer(net, planned.spec.training)
    batches = data.batches(planned.strides, deep_supervision=deep_supervision)
    recipe = planned.spec.training
    loss_of = data.loss(planned.strides, deep_supervision=deep_supervision, kind=recipe.loss)
    done = 0
    last: Rung | None = None
    if (task.folder / CHECKPOINT).is_file():
        state = torch.load(task.folder / CHECKPOINT, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        done, last = state["step"], Rung(**state["rung"])
    for rung in range(1, task.rungs + 1):
        end = task.steps * rung // task.rungs
        if end <= done:
            continue
        seed_everything(task.seed + 7919 * rung)
        started, losses = time.monotonic(), []
        net.train()
        net.decoder.deep_supervision = deep_supervision
        for step in range(done, end):
            set_rate(optimizer, planned.spec.training, step, task.steps)
            losses.append(_step(net, optimizer, loss_of, next(batches), device, planned))
            if not math.isfinite(losses[-1]):
                raise DivergedError(f"loss is {losses[-1]} at step {step}")
        net.decoder.deep_supervision = False
        seconds = time.monotonic() - started + (last.seconds if last else 0.0)
        last = Rung(end, data.score(net, device), float(np.mean(losses[-20:])), seconds)
        _save(task.folder, net, optimizer, last)
        report(last)
        done = end
    assert last is not None
    return last


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch; nnU-Net's loader draws from the first two."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: nn.Module,
    batch: tuple[Any, Any],
    device: torch.device,
    planned: Plan,
) -> float:
    images, target = batch
    images = images.to(device)
    target = [t.to(device) for t in target] if isinstance(target, list) else target.to(device)
    optimizer.zero_grad(set_to_none=True)
    # bfloat16, not float16: no loss scaling, and the scan keeps its state in float32 anyway
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss: torch.Tensor = loss_of(net(images), target)
    loss.backward()  # type: ignore[no-untyped-call]
    clip_gradients(net, planned.spec.training)
    optimizer.step()
    return float(loss.detach())


def _save(folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, rung: Rung) -> None:
    """Write the checkpoint, then the metric line; a cut-off write leaves the old checkpoint."""
    state = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": rung.step,
        "rung": vars(rung),
    }
    partial = folder / f"{CHECKPOINT}.partial"
    torch.save(state, partial)
    partial.replace(folder / CHECKPOINT)
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(vars(rung)) + "\n")
