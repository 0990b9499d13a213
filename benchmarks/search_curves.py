"""Train every network of a small space once, so that searches can be replayed without training.

    python benchmarks/search_curves.py

The networks are those of spaces/search_curves.yaml, trained by what trains a search's trials, on
the demo's task and with one seed, and scored at the rungs of a search. Curves go into a table of
their own; `name` says which values were drawn, which outlasts a release that changes the hashes.
CPU seconds go beside them, for other programs on the machine change those far less than wall time.
A second run trains what is missing.

    python benchmarks/search_curves.py --repeats 12

trains 12 of them, drawn at random, with two seeds more, into a table beside that: how far a figure
of the table would move, were it recorded again.
"""

import argparse
import contextlib
import csv
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import phantom_data
import torch
from curves import CurvePoint, append_points, describe_training, read_curves
from optuna.trial import FixedTrial
from phantom_data import Split
from torch import nn

from archspec.nnunet.dataset import find_dataset
from archspec.phantom.reach import ReachTask
from archspec.training.losses import DivergedError
from search.space.space import Space, load_space
from search.trials.nnunet_data import Batch, TrialData
from search.trials.train import Listener, Rung, TrialTask, train

HERE = Path(__file__).parent
SPACE = HERE / "spaces" / "search_curves.yaml"
CURVES = HERE / "results" / "search_curves.csv"
COSTS = HERE / "results" / "search_costs.csv"
REPEATS = HERE / "results" / "search_repeats.csv"
DATASET = "Dataset950_Reach20"
SPLIT = Split(train=64, validation=16, test=0)
SEED = 0
MORE_SEEDS = (1, 2)

Params = dict[str, Any]


@dataclass(frozen=True)
class Seconds:
    """The CPU seconds of a training on one core: what it began with, its steps, its validations."""

    name: str
    start: float
    training: float
    validation: float


def name_of(params: Params) -> str:
    """Return how the tables call the network with these values of the holes."""
    return " ".join(f"{hole}={params[hole]}" for hole in sorted(params))


def networks(space: Space) -> Iterator[Params]:
    """Yield the values of all holes for every network of a space; the first hole changes fastest.

    The holes are plain choices.
    """
    holes = space.holes()[::-1]
    for values in itertools.product(*(hole.options for hole in holes)):
        yield {hole.name: value for hole, value in zip(holes, values, strict=True)}


def read_costs(path: Path) -> dict[str, Seconds]:
    """Return the CPU seconds by name; a file that does not exist has none."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {name: Seconds(name, *map(float, numbers)) for name, *numbers in rows}


class TimedData(TrialData):
    """The demo's task, which counts the CPU seconds of validations and when steps began."""

    began = validating = 0.0

    def batches(self, strides: list[list[int]], *, deep_supervision: bool) -> Iterator[Batch]:
        self.began, self.validating = time.process_time(), 0.0
        yield from super().batches(strides, deep_supervision=deep_supervision)

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        before = time.process_time()
        scores = super().score(net, device)
        self.validating += time.process_time() - before
        return scores


@lru_cache(maxsize=1)
def _opened() -> tuple[Space, TimedData]:
    """Open space and data, once per worker."""
    torch.set_num_threads(1)  # one worker per core
    space = load_space(SPACE)
    size = space.settings.batch_size
    return space, TimedData(find_dataset(DATASET), fold=0, batch_size=size)


def record(job: tuple[Params, int]) -> tuple[list[CurvePoint], Seconds]:
    """Train one network with a seed; a loss that is not a number gives a curve that is cut off."""
    params, seed = job
    space, data = _opened()
    began, name = time.process_time(), name_of(params)
    planned = space.draw(FixedTrial(params), data.dataset.sizes)
    training = describe_training(
        planned,
        name=name,
        task=ReachTask.name,
        level=str(ReachTask().distance),
        cases=len(data.train_cases),
        seed=seed,
        batch_size=data.batch_size,
        steps=space.settings.steps,
    )
    points: list[CurvePoint] = []

    def note(rung: Rung) -> None:
        scores = dict(rung.scores)
        points.append(
            CurvePoint(
                training=training,
                step=rung.step,
                seconds=rung.seconds,
                dice=scores.pop("mean"),
                loss=rung.loss,
                scores=scores,
            )
        )

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DivergedError):
        task = TrialTask(0, {}, Path(folder), seed, space.settings.rung_steps)
        train(task, planned, data, torch.device("cpu"), Listener(note))
    steps = time.process_time() - data.began - data.validating
    return points, Seconds(name, data.began - began, steps, data.validating)


def add(curves: Path, costs: Path | None, points: list[CurvePoint], seconds: Seconds) -> None:
    """Put a training on record; its cost first, for it is over with its curve."""
    if costs is not None:
        new = not costs.is_file()
        with costs.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(field.name for field in fields(Seconds))
            name, *numbers = astuple(seconds)
            writer.writerow([name, *(round(number, 3) for number in numbers)])
    append_points(curves, points)


def repeated(every: list[Params], number: int) -> list[tuple[Params, int]]:
    """Return what to train again: so many networks, drawn at random, with each further seed."""
    picks = np.random.default_rng(SEED).choice(len(every), size=number, replace=False)
    return [(every[pick], seed) for pick in picks for seed in MORE_SEEDS]


def main() -> None:
    """Make the data, train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes of one thread")
    work = Path(tempfile.gettempdir()) / "archspec-experiments"
    parser.add_argument("--work", type=Path, default=work, help="data")
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--costs", type=Path, default=COSTS)
    parser.add_argument("--repeats", type=int, default=0, help="networks to train again")
    parser.add_argument("--repeated", type=Path, default=REPEATS, help="their table")
    given = parser.parse_args()
    phantom_data.enter(given.work)
    phantom_data.prepare(DATASET, ReachTask(), SPLIT, seed=SEED)
    space = load_space(SPACE)
    every = list(networks(space))
    jobs = [(params, SEED) for params in every]
    curves, costs = given.curves, given.costs
    if given.repeats:
        jobs, curves, costs = repeated(every, given.repeats), given.repeated, None
    recorded = {(one.name, one.seed): len(points) for one, points in read_curves(curves).items()}
    rungs = len(space.settings.rung_steps)
    missing = [job for job in jobs if recorded.get((name_of(job[0]), job[1]), 0) < rungs]
    print(f"{len(missing)} of {len(jobs)} trainings to do", flush=True)
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for done, (points, seconds) in enumerate(pool.imap_unordered(record, missing), start=1):
            add(curves, costs, points, seconds)
            dice = " ".join(f"{point.dice:.3f}" for point in points)
            cost = seconds.start + seconds.training + seconds.validation
            print(f"{done:4} {seconds.name:60} {dice}  {cost:.0f} s", flush=True)


if __name__ == "__main__":
    main()
