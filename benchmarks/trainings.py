"""One training of an experiment, in a worker process: nnU-Net's loader, loss and predictor.

A training is scored at its rungs on the validation cases, and once, if it is to be tested, at its
end on the test cases. One that stopped at a rung leaves a checkpoint, from which it goes on.
"""

import contextlib
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from archspec.building import build_plan
from archspec.evaluation import dice, mean, scored_labels
from archspec.nnunet_dataset import find_dataset
from archspec.planning import Plan
from archspec.recipe import TrainingSpec, build_optimizer, clip_gradients, set_rate
from archspec.resolving import resolve
from archspec.surface_metrics import surface_scores
from search.curves import CurvePoint, Training, describe_training
from search.data import TrialData
from search.trial import seed_everything

CaseScores = dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Job:
    """A training to do: up to rung `stop_after`, from the checkpoint in `folder` where one is.

    `decided` are the labels that only far evidence tells apart; their side is scored. `test` says
    whether the test cases are scored at the end, `tolerance` (mm) that surface Dice is, too.
    """

    name: str
    tree: dict[str, Any]
    dataset: str
    task: str
    level: str
    fold: int
    seed: int
    rung_steps: tuple[int, ...]
    stop_after: int
    batch_size: int
    decided: tuple[str, ...]
    folder: Path
    device: str
    test: bool
    tolerance: float | None = None

    @property
    def steps(self) -> int:
        return self.rung_steps[-1]

    def planned(self) -> Plan:
        """Return the plan for the dataset's own sizes."""
        dataset = find_dataset(self.dataset)
        return resolve(
            self.tree,
            in_channels=dataset.num_channels,
            num_classes=dataset.num_classes,
            patch_size=dataset.patch_size,
        )

    def training(self) -> Training:
        """Return what the table of curves calls this training."""
        return describe_training(
            self.planned(),
            name=self.name,
            task=self.task,
            level=self.level,
            cases=len(_data(self.dataset, self.fold, self.batch_size).train_cases),
            seed=self.seed,
            batch_size=self.batch_size,
            steps=self.steps,
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a job gave: its rungs, and the test scores by case where it was tested."""

    job: Job
    training: Training | None
    points: list[CurvePoint]
    test: CaseScores
    failed: str = ""


def start_worker() -> None:
    """Prepare a worker process: one thread, for there is one worker per core."""
    torch.set_num_threads(1)


def run(job: Job) -> Outcome:
    """Train and score; a fault becomes an outcome, so that it cannot end an experiment."""
    training, points = None, []
    try:
        training = job.training()
        net = _train(job, training, points)
        test: CaseScores = {}
        if job.test:
            data = _data(job.dataset, -1, job.batch_size)
            device = torch.device(job.device)
            test = score_cases(net, data, device, job.decided, tolerance=job.tolerance)
        return Outcome(job, training, points, test)
    except (ArithmeticError, RuntimeError) as error:
        return Outcome(job, training, points, {}, f"{type(error).__name__}: {error}")


def _train(job: Job, training: Training, points: list[CurvePoint]) -> nn.Module:
    device, planned = torch.device(job.device), job.planned()
    data = _data(job.dataset, job.fold, job.batch_size)
    seed_everything(job.seed)
    net = build_plan(planned).to(device)
    recipe = planned.spec.training
    optimizer = build_optimizer(net, recipe)
    file = job.folder / f"{training.trial_hash}-{job.task}-{job.level}-{job.fold}-{job.seed}.pt"
    done, seconds = 0, 0.0
    if file.is_file():
        state = torch.load(file, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        done, seconds = state["step"], state["seconds"]
    batches = data.batches(planned.strides, deep_supervision=False)
    loss_of = data.loss(planned.strides, deep_supervision=False, kind=recipe.loss)
    for rung, end in enumerate(job.rung_steps[: job.stop_after], start=1):
        if end <= done:
            continue
        seed_everything(job.seed + 7919 * rung)
        started, losses = time.monotonic(), []
        net.train()
        for step in range(done, end):
            set_rate(optimizer, recipe, step, job.steps)
            losses.append(_step(net, optimizer, loss_of, next(batches), recipe, device))
        done, seconds = end, seconds + time.monotonic() - started
        scores = mean_scores(score_cases(net, data, device, job.decided))
        loss = float(np.mean(losses[-20:]))
        points.append(
            CurvePoint(
                training=training,
                step=end,
                seconds=seconds,
                dice=scores.pop("mean"),
                loss=loss,
                scores=scores,
            )
        )
    if not job.test:  # it is gone on from, if its rate is chosen
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
        partial = file.with_suffix(".partial")
        torch.save({**state, "step": done, "seconds": seconds}, partial)
        partial.replace(file)
    return net


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: nn.Module,
    batch: tuple[Any, Any],
    recipe: TrainingSpec,
    device: torch.device,
) -> float:
    images, target = (part.to(device) for part in batch)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = loss_of(net(images), target)
    loss.backward()
    clip_gradients(net, recipe)
    optimizer.step()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ArithmeticError(f"loss is {value}")
    return value


@lru_cache(maxsize=16)
def _data(dataset: str, fold: int, batch_size: int) -> TrialData:
    return TrialData(find_dataset(dataset), fold=fold, batch_size=batch_size)


def score_cases(
    net: nn.Module,
    data: TrialData,
    device: torch.device,
    decided: tuple[str, ...],
    *,
    tolerance: float | None = None,
) -> CaseScores:
    """Return Dice by case and class, their mean, and `side` where labels are `decided`.

    Predicted by nnU-Net's sliding windows without mirroring. `side` is the share of voxels with
    the right label among those that have, and were given, one of the decided labels: whoever
    cannot tell them apart gets a half on average, which also stands where there is no such voxel.
    With a `tolerance` (mm), `surface` is the mean over classes of surface Dice.
    """
    classes, groups = scored_labels(data.dataset.dataset_json)
    values = [value for name in decided for value in classes[name]]
    spacing = data.configuration.spacing
    found: CaseScores = {}
    for case, prediction, reference in _predicted(net, data, device):
        scores = {k: dice(prediction, reference, v) for k, v in {**classes, **groups}.items()}
        scores["mean"] = mean(scores[name] for name in classes)
        if decided:
            both = np.isin(prediction, values) & np.isin(reference, values)
            right = prediction[both] == reference[both]
            scores["side"] = float(right.mean()) if both.any() else 0.5
        if tolerance is not None:
            masks = [(np.isin(prediction, v), np.isin(reference, v)) for v in classes.values()]
            scores["surface"] = mean(
                surface_scores(*pair, spacing, tolerance=tolerance).surface_dice for pair in masks
            )
        found[case] = scores
    return found


def mean_scores(cases: CaseScores) -> dict[str, float]:
    """Return the mean over cases of every score, NaN left out."""
    names = next(iter(cases.values()))
    return {name: mean(scores[name] for scores in cases.values()) for name in names}


def _predicted(
    net: nn.Module, data: TrialData, device: torch.device
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    with contextlib.redirect_stdout(io.StringIO()):  # on a CPU it reports a changed default
        predictor = nnUNetPredictor(use_mirroring=False, device=device, allow_tqdm=False)
    predictor.manual_initialization(
        net, data.plans, data.configuration, None, data.dataset.dataset_json, "none", None
    )
    cases = data.dataset_class(data.folder, data.validation_cases)
    for case in data.validation_cases:
        image, reference, _, _ = cases.load_case(case)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:]))
        prediction = data.labels.convert_logits_to_segmentation(logits.float().cpu())
        yield case, np.asarray(prediction), np.asarray(reference[0])
