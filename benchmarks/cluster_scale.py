"""How many places one driver can serve: sleeping trainings through the real loop.

    python benchmarks/cluster_scale.py --storage postgresql://user@host/database \
        --out benchmarks/results/cluster_scale.json

Nothing is trained: a place sleeps up to each of its four rungs, and waits there until the driver is
done with it, as a real one does. Counted are reports, that is rungs and ends, from the first trial
on; drawing, planning and costing the networks is part of the driver's work. With places that do not
sleep it says what the driver can take, and with 8 that do, how near they come to 8 times one. The
study is in the run folder (SQLite) and, with `--storage`, on that PostgreSQL server too.
"""

import argparse
import datetime
import heapq
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from search_overhead import PATCH, wide_space

import search
from search.study.run import run
from search.study.server import VARIABLE
from search.study.task import SearchTask
from search.trials.host import TrainingHost
from search.trials.own import own_cases
from search.trials.train import Rung, TrialTask
from search.trials.worker import Message

SEATS = 8


class NoCases(search.Cases):
    """What a search must know of its data, without data."""

    name = "nothing"
    in_channels, num_classes, patch_size, batch_size = 1, 2, tuple(PATCH), 2
    classes = ("organ",)
    validation_cases, test_cases = ["v"], []

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[Any]:
        raise AssertionError("nothing is trained")

    def score_cases(self, net: Any, device: Any, cases: list[str]) -> Any:
        raise AssertionError("nothing is scored")


class SleepingPlaces:
    """Places that need `seconds` for each rung, and do nothing."""

    def __init__(self, places: int, seconds: float) -> None:
        self._places = places
        self._seconds = seconds
        self._due: list[tuple[float, int, int]] = []
        self._tasks: dict[int, TrialTask] = {}
        self.reports = 0
        self.began: tuple[float, float] | None = None

    def __enter__(self) -> "SleepingPlaces":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def num_busy(self) -> int:
        return len(self._tasks)

    @property
    def num_idle(self) -> int:
        return self._places - len(self._tasks)

    def submit(self, task: TrialTask) -> None:
        if self.began is None:
            self.began = time.monotonic(), time.process_time()
        self._tasks[task.number] = task
        self._train(task.number, 0)

    def stop(self, number: int) -> None:
        del self._tasks[number]

    def messages(self) -> Iterator[Message]:
        time.sleep(min(max(self._due[0][0] - time.monotonic(), 0.0), 1.0))
        while self._due and self._due[0][0] <= time.monotonic():
            _, number, index = heapq.heappop(self._due)
            steps = self._tasks[number].rung_steps
            rung = Rung(steps[index], {"mean": 0.9, "organ": 0.9}, 1.0, 1.0, 0.9)
            self.reports += 1
            yield Message(number, "rung", rung)
            if number in self._tasks and index + 1 < len(steps):
                self._train(number, index + 1)
            elif number in self._tasks:
                del self._tasks[number]
                self.reports += 1
                yield Message(number, "done", rung)

    def _train(self, number: int, index: int) -> None:
        heapq.heappush(self._due, (time.monotonic() + self._seconds, number, index))


@dataclass(frozen=True)
class Measured:
    """A search: its reports, and the seconds of wall clock and of the driver's CPU they took."""

    reports: int
    wall: float
    cpu: float


def measured(places: int, seconds: float, trials: int, storage: str) -> Measured:
    """Search in a folder of its own from its first trial to its last."""
    with tempfile.TemporaryDirectory() as name:
        host = TrainingHost(devices=("cpu",) * places)
        space = wide_space(Path(name))
        task = SearchTask(
            space, own_cases(NoCases()), Path(name) / "run", trials, host, storage=storage
        )
        engine = SleepingPlaces(places, seconds)
        run(task, make_engine=lambda *_: engine)
        assert engine.began is not None
        wall, cpu = engine.began
        return Measured(engine.reports, time.monotonic() - wall, time.process_time() - cpu)


def of_storage(storage: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a study there."""
    full = measured(1, 0.0, given.trials, storage)
    one = measured(1, given.seconds, given.each, storage)
    many = measured(SEATS, given.seconds, given.each * SEATS, storage)
    return {
        "reports_per_second": round(full.reports / full.wall, 1),
        "cpu_ms_per_report": round(1e3 * full.cpu / full.reports, 1),
        f"share_of_linear_at_{SEATS}": round(
            (many.reports / many.wall) / (SEATS * one.reports / one.wall), 3
        ),
        "reports": full.reports,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--storage", help="PostgreSQL, beside SQLite: postgresql://user@host/db")
    parser.add_argument("--trials", type=int, default=100, help="of places that do not sleep")
    parser.add_argument("--each", type=int, default=3, help="trials of each place that sleeps")
    parser.add_argument("--seconds", type=float, default=5.0, help="that it sleeps for a rung")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ.pop(VARIABLE, None)
    names = ("archspec-seg", "optuna", "sqlalchemy", "psycopg")
    found: dict[str, Any] = {"SQLite": of_storage("sqlite", given)}
    if given.storage:
        found["PostgreSQL"] = of_storage(given.storage, given)
    found |= {
        "settings": {name: getattr(given, name) for name in ("trials", "each", "seconds")},
        "load": [round(load, 1) for load in os.getloadavg()],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in names},
        },
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(found, indent=1))
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
