"""What the driver itself costs per trial, in a study that already holds thousands of trials.

    python benchmarks/search_overhead.py --out benchmarks/results/search_overhead.json

Nothing is trained: a pool answers at once with a rung after each task's rungs. The study is in
memory. Counted is the process's CPU time of the whole loop per trial (draw, plan, cost, files, four
decisions among all stored rungs, records), less Optuna's own `ask` and `suggest`.
"""

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import torch

from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.yaml_file import dump
from search.space.space import Space, load_space
from search.study.loop import SearchLoop
from search.study.task import SearchTask
from search.trials.train import Rung, TrialTask
from search.trials.worker import Message

PATCH = [16, 32, 48]


class NoTraining:
    """A pool that takes a trial through all its rungs in one call."""

    def __init__(self) -> None:
        self.task: TrialTask | None = None

    @property
    def num_idle(self) -> int:
        return int(self.task is None)

    @property
    def num_busy(self) -> int:
        return int(self.task is not None)

    def submit(self, task: TrialTask) -> None:
        self.task = task

    def stop(self, number: int) -> None:
        self.task = None

    def messages(self) -> Iterator[Message]:
        task = self.task
        assert task is not None
        rung = Rung(0, {"mean": 0.9, "organ": 0.9}, 1.0, 1.0, 0.9)  # above all that is stored
        for step in task.rung_steps:
            rung = Rung(step, rung.scores, 1.0, 1.0, 0.9)
            yield Message(task.number, "rung", rung)
        self.task = None
        yield Message(task.number, "done", rung)


class Optunas:
    """The CPU seconds spent in some of Optuna's methods."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - started

        return call


def wide_space(folder: Path) -> Space:
    """Return the demo space with widths of many values, so that nothing is drawn twice."""
    holes = {
        "encoder.stages.0.width": {"int": [2, 400]},
        "encoder.stages.1.width": {"int": [2, 400]},
    }
    path = folder / "space.yaml"
    source = load_space("demo").source.tree
    path.write_text(dump({**source, "search": {"steps": 2700, "holes": holes}}), "utf-8")
    return load_space(path)


def filled(study: optuna.Study, space: Space, stored: int) -> None:
    """Add finished trials with four rungs each, drawn at random."""
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(stored):
        trial = draws.ask()
        space.suggest(trial)
        rungs = [
            {"step": s, "scores": {"mean": 0.5}, "loss": 1.0, "seconds": 1.0, "smoothed": 0.5}
            for s in space.settings.rung_steps
        ]
        attributes = {"trial_hash": f"stored-{number}", "flops": 10**9 + number, "rungs": rungs}
        study.add_trial(
            optuna.trial.create_trial(
                values=[0.5, 9.0],
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=attributes,
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = {"patch_size": PATCH, "spacing": [1, 1, 1], "data_identifier": "data"}
    description = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}}
    results = {}
    for stored in (0, options.stored):
        with tempfile.TemporaryDirectory() as name:
            folder, optunas = Path(name), Optunas()
            space = wide_space(folder)
            dataset = PreprocessedDataset(folder, "Dataset901_X", "3d", {}, description, settings)
            sampler = optuna.samplers.RandomSampler(seed=1)
            study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
            filled(study, space, stored)
            task = SearchTask(space, dataset, folder, stored + options.trials)
            loop = SearchLoop(task, study)
            started = time.process_time()
            loop.recover()
            start_up = time.process_time() - started
            study.ask = optunas.timed(study.ask)  # type: ignore[method-assign]
            suggest = space.suggest
            started = time.process_time()
            object.__setattr__(space, "suggest", optunas.timed(suggest))
            loop.drive(NoTraining())  # type: ignore[arg-type]
            whole = time.process_time() - started
            own = (whole - optunas.seconds) / options.trials
            results[f"{stored} stored"] = {
                "own_ms_per_trial": round(own * 1e3, 1),
                "ask_and_suggest_ms_per_trial": round(optunas.seconds / options.trials * 1e3, 1),
                "start_up_ms": round(start_up * 1e3, 1),
            }
    found = {
        **results,
        "trials": options.trials,
        "space": "demo with wide widths, 4 rungs, stopper pash, random sampler",
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__, "optuna": optuna.__version__},
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(found, indent=1))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
