"""Train one spec: optimizer steps in segments, each ending at a rung with a score and a file."""

import json
import pickle
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archspec.files import replacing
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.training.devices import timed_convolutions
from archspec.training.losses import Losses
from archspec.training.step import Stepper, autocast_dtype
from archspec.training.waits import Waits
from blocks.errors import reason
from search.trials.batches import Loading, load_batches
from search.trials.cases import Cases, CaseScores
from search.trials.faults import is_loader_lost
from search.trials.recorded import from_record

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

    `smoothed` is the mean Dice over up to three validations since the rung before. `seconds` are
    those of training since its start, `waited` those of them in which a step waited for its batch
    (unknown to earlier releases).
    """

    step: int
    scores: dict[str, float]
    loss: float
    seconds: float
    smoothed: float | None = None
    waited: float | None = None

    @property
    def dice(self) -> float:
        """Return the Dice by which the rung is judged."""
        return self.scores["mean"] if self.smoothed is None else self.smoothed

    @property
    def busy(self) -> float | None:
        """Return the share of the seconds in which no step waited for its batch."""
        return None if self.waited is None else 1 - self.waited / max(self.seconds, 1e-9)

    @property
    def time_text(self) -> str:
        """Return how long it trained, and how busy that was."""
        busy = "" if self.busy is None else f", {100 * self.busy:.0f} % busy"
        return f"{self.seconds:.0f} s{busy}"


class StoppedError(Exception):
    """The driver stopped the trial at a rung."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, say because the disk is full."""


def train(
    task: TrialTask,
    planned: Plan,
    data: Cases,
    device: torch.device,
    report: Callable[[Rung], None],
    loading: Loading = Loading(),  # noqa: B008
) -> Rung:
    """Train, report every rung, and return the last one.

    A checkpoint is written before a rung is reported, so what was reported is never trained again;
    its rung is reported again when it is gone on from. Batches depend on the seed and the step
    alone, other random numbers on the seed and the segment: a resumed trial ends like one that was
    never cut off.

    Raises:
        DivergedError: the loss became NaN or infinite; on a GPU that is seen some steps later.
        StoppedError: whoever is told of a rung may raise it.
        CheckpointError: a checkpoint cannot be written.
        LoadingError, RuntimeError: see `load_batches`.
    """
    seed_everything(task.seed)
    recipe = planned.spec.training
    net = build_plan(planned).to(device)
    deep_supervision = planned.spec.deep_supervision.heads > 1
    stepper = Stepper(net, recipe, device=device, dtype=autocast_dtype(device))
    loss_of = data.loss(planned.strides, deep_supervision=deep_supervision, kind=recipe.loss)
    last = _restored(task.folder, stepper, device)
    done = 0 if last is None else last.step
    if last is not None:
        report(last)
    source = data.batches(planned.strides, deep_supervision=deep_supervision)
    total = task.rung_steps[-1]
    ahead = load_batches(source, range(done, total), seed=task.seed, loading=loading)
    with timed_convolutions(device), closing(ahead) as batches:
        for rung, end in enumerate(task.rung_steps, start=1):
            if end <= done:
                continue
            seed_everything(task.seed + 7919 * rung)
            started, waits, losses = time.monotonic(), Waits(device), Losses(device, done)
            validations: list[float] = []
            _set_training(net, deep_supervision)
            for step in range(done, end):
                losses.add(stepper.step(loss_of, waits.next(batches), step, total))
                if task.validate_every and (step + 1) % task.validate_every == 0 and step + 1 < end:
                    losses.read()
                    validations.append(_scores(net, data, device)["mean"])
                    _set_training(net, deep_supervision)
            found = losses.read()
            seconds, waited = time.monotonic() - started, waits.seconds()
            scores = _scores(net, data, device)
            smoothed = float(np.mean([*validations, scores["mean"]][-3:]))
            if last is not None:
                seconds += last.seconds
                waited += last.waited or 0.0
            last = Rung(end, scores, float(np.mean(found[-20:])), seconds, smoothed, waited)
            _save(task.folder, stepper, last)
            report(last)
            done = end
    assert last is not None
    return last


def score_trained(
    task: TrialTask, planned: Plan, data: Cases, device: torch.device
) -> tuple[CaseScores, CaseScores]:
    """Return the scores of the validation and the test cases, with the last checkpoint's weights.

    Raises:
        CheckpointError: there is no checkpoint of the last step.
    """
    net = build_plan(planned).to(device)
    stepper = Stepper(net, planned.spec.training, device=device, dtype=None)
    last = _restored(task.folder, stepper, device)
    if last is None or last.step != task.rung_steps[-1]:
        raise CheckpointError(f"{task.folder / CHECKPOINT}: is not of step {task.rung_steps[-1]}")
    net.decoder.deep_supervision = False
    net.eval()
    validation = data.score_cases(net, device, data.validation_cases)
    return validation, data.score_cases(net, device, data.test_cases)


def _set_training(net: SegNet, deep_supervision: bool) -> None:
    net.train()
    net.decoder.deep_supervision = deep_supervision


def _scores(net: SegNet, data: Cases, device: torch.device) -> dict[str, float]:
    net.decoder.deep_supervision = False
    return data.score(net, device)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch; nnU-Net's loader draws from the first two."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # it takes no more; the other two take them all
    torch.manual_seed(seed)


def _restored(folder: Path, stepper: Stepper, device: torch.device) -> Rung | None:
    """Load the checkpoint of the folder; None where there is none, or it cannot be read."""
    file = folder / CHECKPOINT
    if not file.is_file():
        return None
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        rung = from_record(Rung, state["rung"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        file.replace(folder / f"{CHECKPOINT}.unreadable")
        return None
    stepper.load_state_dict(state)
    return rung


def _save(folder: Path, stepper: Stepper, rung: Rung) -> None:
    """Write the checkpoint, then the metric line; a cut-off write leaves the old checkpoint."""
    state = {**stepper.state_dict(), "step": rung.step, "rung": vars(rung)}
    try:
        with replacing(folder / CHECKPOINT) as partial, partial.open("wb") as file:
            torch.save(state, file)  # given a path, torch hides why it cannot write
        with (folder / METRICS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(vars(rung)) + "\n")
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        if is_loader_lost(error):
            raise
        raise CheckpointError(
            f"{folder / CHECKPOINT}: cannot be written: {reason(error)}"
        ) from error
