"""One training of an experiment, in a worker process: a trial of the search, with more scores.

A training is scored at its rungs on the validation cases, and once, if it is to be tested, at its
end on the test cases. One that stopped at a rung goes on from there.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curves import CurvePoint, Training, describe_training
from torch import nn

from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.nnunet.dataset import find_dataset
from archspec.nnunet.splits import split_cases
from archspec.scoring.dice import mean
from archspec.scoring.labels import scored_labels
from archspec.scoring.surface import surface_scores
from search.trials.cases import CaseScores, Predicted, scores_of_case
from search.trials.nnunet_data import TrialData
from search.trials.recorded import from_record
from search.trials.train import (
    METRICS,
    Listener,
    Rung,
    StoppedError,
    TrialTask,
    score_trained,
    train,
)


@dataclass(frozen=True, eq=False)
class Job:
    """A training to do: up to rung `stop_after`, from the checkpoint in `folder` where one is.

    `decided` are the labels that only far evidence tells apart; their side is scored. With a
    `tolerance` (mm) surface Dice is, too. `test` says whether the test cases are scored at the end.
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
        return resolve(self.tree, find_dataset(self.dataset).sizes)

    def training(self) -> Training:
        """Return what the table of curves calls this training."""
        return describe_training(
            self.planned(),
            name=self.name,
            task=self.task,
            level=self.level,
            cases=len(split_cases(find_dataset(self.dataset), fold=self.fold).train),
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
        test = _trained(job, training)
        return Outcome(job, training, _points(job, training), test)
    except (ArithmeticError, RuntimeError) as error:
        points = [] if training is None else _points(job, training)
        return Outcome(job, training, points, {}, f"{type(error).__name__}: {error}")


def _trained(job: Job, training: Training) -> CaseScores:
    """Train up to the job's last rung, and return the scores of the test cases if it asks."""
    task = TrialTask(0, job.tree, _folder(job, training), job.seed, job.rung_steps)
    task.folder.mkdir(parents=True, exist_ok=True)
    device, planned = torch.device(job.device), job.planned()
    data = _data(job.dataset, job.fold, job.batch_size, job.decided, job.tolerance)

    def stop(rung: Rung) -> None:
        if rung.step >= job.rung_steps[job.stop_after - 1] and job.stop_after < len(job.rung_steps):
            raise StoppedError

    try:
        train(task, planned, data, device, Listener(stop))
    except StoppedError:
        return {}
    return score_trained(task, planned, data, device)[1] if job.test else {}


def _folder(job: Job, training: Training) -> Path:
    return job.folder / "-".join(map(str, training.key))


def _points(job: Job, training: Training) -> list[CurvePoint]:
    """Return every rung that the training reached, here or in an earlier run."""
    file = _folder(job, training) / METRICS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rungs = {rung.step: rung for rung in (from_record(Rung, json.loads(line)) for line in lines)}
    return [
        CurvePoint(
            training=training,
            step=step,
            seconds=rung.seconds,
            dice=rung.dice,
            loss=rung.loss,
            scores={name: score for name, score in rung.scores.items() if name != "mean"},
        )
        for step, rung in sorted(rungs.items())
    ]


@lru_cache(maxsize=16)
def _data(
    name: str, fold: int, batch_size: int, decided: tuple[str, ...], tolerance: float | None
) -> "ScoredData":
    dataset = find_dataset(name)
    tests = split_cases(dataset, fold=-1).validation
    data = ScoredData(dataset, fold=fold, batch_size=batch_size, held_out=tests)
    data.decided, data.tolerance = decided, tolerance
    return data


class ScoredData(TrialData):
    """A fold's cases, the last fold's for the test, with the scores that an experiment wants.

    `side` is the share of voxels with the right label among those that have, and were given, one of
    the decided labels: whoever cannot tell them apart gets a half on average, which also stands
    where there is no such voxel. `surface` is the mean over classes of surface Dice at a tolerance
    (mm).
    """

    decided: tuple[str, ...] = ()
    tolerance: float | None = None

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean over validation cases of every score, NaN left out."""
        cases = list(self.score_cases(net, device, self.validation_cases).values())
        return {name: mean(scores[name] for scores in cases) for name in cases[0]}

    def scores_of(self, one: Predicted) -> dict[str, float]:
        """Return Dice by class and group, their `mean`, and what is asked for beside."""
        classes, _ = scored_labels(self.dataset.dataset_json)
        values = [value for name in self.decided for value in classes[name]]
        scores = scores_of_case(one.prediction, one.reference, self.dataset.dataset_json)
        if self.decided:
            both = np.isin(one.prediction, values) & np.isin(one.reference, values)
            right = one.prediction[both] == one.reference[both]
            scores["side"] = float(right.mean()) if both.any() else 0.5
        if self.tolerance is not None:
            spacing = self.configuration.spacing
            masks = [
                (np.isin(one.prediction, v), np.isin(one.reference, v)) for v in classes.values()
            ]
            scores["surface"] = mean(
                surface_scores(*pair, spacing, tolerance=self.tolerance).surface_dice
                for pair in masks
            )
        return scores
