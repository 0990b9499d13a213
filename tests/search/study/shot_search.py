"""A search whose driver and workers are killed again and again, at random moments.

Everything is imported once, and every driver forked off; its workers are forked too, which spares
minutes of imports. Whoever lives writes letters into a pipe, a driver for each event, a worker for
each step, so that shots fall everywhere and no letter is waited for in vain. The last line that is
printed has the number of shots at drivers and at workers.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
import torch

import search.trials.train  # noqa: F401  # what a worker imports
from archspec.nnunet.dataset import find_dataset
from archspec.training.step import Stepper
from search.space.space import load_space
from search.study.loop import Event
from search.study.run import run
from search.study.task import SearchTask
from search.trials import nnunet_data  # noqa: F401
from search.trials.host import TrainingHost

LETTERS = {"start": b"s", "rung": b"r"}
MOST_STEPS, MOST_SECONDS = 4, 0.3
"""Between two shots."""
MANY = 10**9

letters = -1
"""Where this process writes to."""
_step = Stepper.step


def logged_step(*args: Any) -> torch.Tensor:
    """Log the segment's seed, which only this trial and rung have, and the step; then take it."""
    file = os.open(os.environ["STEP_LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, f"{torch.initial_seed()} {args[3]}\n".encode())
    os.close(file)
    os.write(letters, b".")
    return _step(*args)


class Driver:
    """A search in a child process."""

    def __init__(self, space: str, out: str, trials: str) -> None:
        self._ours, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._ours)
            os._exit(_search(Path(space), Path(out), int(trials), theirs))
        os.close(theirs)
        self.has_rung = False
        self._lost = False

    def is_alive_after(self, steps: int) -> bool:
        """Wait for so many steps; say whether the search still runs.

        `has_rung` says whether the trial has come to a rung since it started, or lost its worker:
        one that loses two workers on its way to a rung has failed.
        """
        while steps > 0:
            letter = os.read(self._ours, 1)
            if not letter:
                return False
            if letter == b"s":
                self.has_rung = self._lost = False
            if letter == b"r":
                self.has_rung = not self._lost
            steps -= letter == b"."
        return True

    def shoot_worker(self) -> bool:
        """Kill the worker; False where there is none just now."""
        workers = self._workers()
        for worker in workers:
            worker.kill()
        self.has_rung, self._lost = False, bool(workers) or self._lost
        return bool(workers)

    def shoot(self) -> None:
        """Kill the driver; its workers must end with it."""
        workers = self._workers()
        os.kill(self.pid, signal.SIGKILL)
        self.end()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, "workers must end with their driver"

    def end(self) -> int:
        """Wait for the driver, and return its exit status as `os.wait` has it."""
        os.close(self._ours)
        return os.waitpid(self.pid, 0)[1]

    def _workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children()
            return [one for one in children if "resource_tracker" not in " ".join(one.cmdline())]
        return []


def _search(space: Path, out: Path, trials: int, pipe: int) -> int:
    global letters
    letters = pipe

    def tell(event: Event) -> None:
        os.write(pipe, LETTERS.get(event.kind, b"-"))

    task = SearchTask(load_space(space), find_dataset("902"), out, trials, TrainingHost(seed=5))
    try:
        run(task, resume=True, on_event=tell)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(space: str, root: Path, trials: str, shots: int) -> None:
    """Search in one folder after the other until so many shots were fired, each search to its end.

    The folders are 0, 1, ...; each has its `run` and the log of its steps.
    """
    draws, shot = random.Random(0), {"driver": 0, "worker": 0}
    for number in itertools.count():
        folder = root / str(number)
        folder.mkdir()
        os.environ["STEP_LOG"] = str(folder / "steps.log")
        search_under_fire(space, str(folder / "run"), trials, shots, draws, shot)
        if sum(shot.values()) >= shots:
            print(json.dumps(shot))
            return


def search_under_fire(
    space: str, out: str, trials: str, shots: int, draws: random.Random, shot: dict[str, int]
) -> None:
    """Search in the folder until all trials have ended; count in `shot` who was killed."""
    driver = Driver(space, out, trials)
    while True:
        steps = draws.randint(0, MOST_STEPS) if sum(shot.values()) < shots else MANY
        if not driver.is_alive_after(steps):
            assert driver.end() == 0
            return
        time.sleep(draws.uniform(0, MOST_SECONDS))
        if driver.has_rung and driver.shoot_worker():
            shot["worker"] += 1
        else:
            driver.shoot()
            shot["driver"] += 1
            driver = Driver(space, out, trials)


if __name__ == "__main__":
    Stepper.step = logged_step  # type: ignore[method-assign]
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment]
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
