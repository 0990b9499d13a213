"""Train one spec: optimizer steps in segments, each ending at a rung with a score and a file."""

import json
import math
import os
import pickle
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
from archspec.network import SegNet
from archspec.planning import Plan
from archspec.recipe import build_optimizer, clip_gradients, set_rate
from search.data import CaseScores, TrialData

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class TrialTask:
    """What a worker needs to train one trial; a checkpoint in its folder is gone on from.

    `by_case` asks for the scores of every validation and test case at the end.
    """

    number: int
    tree: dict[str, Any]
    folder: Path
    seed: int
    rung_steps: tuple[int, ...]
    validate_every: int | None = None
    by_case: bool = False


@dataclass(frozen=True)
class Rung:
    """A score on the way: `scores` are Dice by class and group, and their `mean`.

    `smoothed` is the mean Dice over up to three validations since the rung before.
    """

    step: int
    scores: dict[str, float]
    loss: float
    seconds: float
    smoothed: float | None = None

    @property
    def dice(self) -> float:
        """Return the Dice by which the rung is judged."""
        return self.scores["mean"] if self.smoothed is None else self.smoothed


class DivergedError(RuntimeError):
    """The loss is not a number."""


class StoppedError(Exception):
    """The driver stopped the trial at a rung."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, say because the disk is full."""


def train(
    task: TrialTask,
    planned: Plan,
    data: TrialData,
    device: torch.device,
    report: Callable[[Rung], None],
) -> Rung:
    """Train, report every rung, and return the last one.

    A checkpoint is written before a rung is reported, so what was reported is never trained again;
    its rung is reported again when it is gone on from. Random numbers depend on the seed and the
    segment alone: a resumed trial sees the same batches as one that was never cut off.

    Raises:
        DivergedError: the loss became NaN or infinite.
        StoppedError: whoever is told of a rung may raise it.
        CheckpointError: a checkpoint cannot be written.
    """
    seed_everything(task.seed)
    net = build_plan(planned).to(device)
    deep_supervision = planned.spec.deep_supervision.heads > 1
    optimizer = build_optimizer(net, planned.spec.training)
    batches = data.batches(planned.strides, deep_supervision=deep_supervision)
    loss_of = data.loss(
        planned.strides, deep_supervision=deep_supervision, kind=planned.spec.training.loss
    )
    last = _restored(task.folder, net, optimizer, device)
    done = 0 if last is None else last.step
    if last is not None:
        report(last)
    for rung, end in enumerate(task.rung_steps, start=1):
        if end <= done:
            continue
        seed_everything(task.seed + 7919 * rung)
        started, losses = time.monotonic(), []
        validations: list[float] = []
        _set_training(net, deep_supervision)
        for step in range(done, end):
            set_rate(optimizer, planned.spec.training, step, task.rung_steps[-1])
            losses.append(_step(net, optimizer, loss_of, next(batches), device, planned))
            if not math.isfinite(losses[-1]):
                raise DivergedError(f"loss is {losses[-1]} at step {step}")
            if task.validate_every and (step + 1) % task.validate_every == 0 and step + 1 < end:
                validations.append(_scores(net, data, device)["mean"])
                _set_training(net, deep_supervision)
        seconds = time.monotonic() - started + (last.seconds if last else 0.0)
        scores = _scores(net, data, device)
        smoothed = float(np.mean([*validations, scores["mean"]][-3:]))
        last = Rung(end, scores, float(np.mean(losses[-20:])), seconds, smoothed)
        _save(task.folder, net, optimizer, last)
        report(last)
        done = end
    assert last is not None
    return last


def score_trained(
    task: TrialTask, planned: Plan, data: TrialData, device: torch.device
) -> tuple[CaseScores, CaseScores]:
    """Return the scores of the validation and the test cases, with the last checkpoint's weights.

    Raises:
        CheckpointError: there is no checkpoint of the last step.
    """
    net = build_plan(planned).to(device)
    last = _restored(task.folder, net, build_optimizer(net, planned.spec.training), device)
    if last is None or last.step != task.rung_steps[-1]:
        raise CheckpointError(f"{task.folder / CHECKPOINT}: is not of step {task.rung_steps[-1]}")
    net.decoder.deep_supervision = False
    net.eval()
    validation = data.score_cases(net, device, data.validation_cases)
    return validation, data.score_cases(net, device, data.test_cases)


def _set_training(net: SegNet, deep_supervision: bool) -> None:
    net.train()
    net.decoder.deep_supervision = deep_supervision


def _scores(net: SegNet, data: TrialData, device: torch.device) -> dict[str, float]:
    net.decoder.deep_supervision = False
    return data.score(net, device)


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


def _restored(
    folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> Rung | None:
    """Load the checkpoint of the folder; None where there is none, or it cannot be read."""
    file = folder / CHECKPOINT
    if not file.is_file():
        return None
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        rung = Rung(**state["rung"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        file.replace(folder / f"{CHECKPOINT}.unreadable")
        return None
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return rung


def _save(folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, rung: Rung) -> None:
    """Write the checkpoint, then the metric line; a cut-off write leaves the old checkpoint."""
    state = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": rung.step,
        "rung": vars(rung),
    }
    partial = folder / f"{CHECKPOINT}.partial"
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # or a crash of the machine could leave the name without bytes
        partial.replace(folder / CHECKPOINT)
        with (folder / METRICS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(vars(rung)) + "\n")
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        partial.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{folder / CHECKPOINT}: cannot be written: {why}") from error
