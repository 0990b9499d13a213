"""A search without training: a pool that answers at once, and a process that can be killed.

As a script it takes the space, the run folder and the number of trials. For every line on its
standard input, a number of events and of seconds, it runs or resumes the search in a child process,
kills that so long after so many events, and prints its exit status; it imports everything once.
"""

import os
import pickle
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import search.study.run
from archspec.nnunet.dataset import PreprocessedDataset
from search.space.space import load_space
from search.study.loop import Event
from search.study.protocol import Terms
from search.study.task import SearchTask
from search.trials.host import TrainingHost
from search.trials.train import CHECKPOINT, Rung, TrialTask
from search.trials.worker import Message

Dice = Callable[[TrialTask, int], float]


def rising(task: TrialTask, step: int) -> float:
    """Return a Dice that grows with the steps and differs from trial to trial."""
    return 0.5 * step / task.rung_steps[-1] + (task.seed % 1000) / 1e4


class FakePool:
    """Trains nothing: each call of `messages` takes every trial to its next rung.

    `fate` says how trials end that do not end well. `trained` lists (seed, step) of all rungs.
    """

    def __init__(
        self, jobs: int = 1, dice: Dice = rising, fate: dict[int, Message] | None = None
    ) -> None:
        self.jobs = jobs
        self.dice = dice
        self.fate = fate or {}
        self.tasks: list[TrialTask] = []
        self.trained: list[tuple[int, int]] = []
        self.active: dict[int, TrialTask] = {}
        self.resumed: set[int] = set()

    def __enter__(self) -> "FakePool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def num_busy(self) -> int:
        return len(self.active)

    @property
    def num_idle(self) -> int:
        return self.jobs - len(self.active)

    def submit(self, task: TrialTask) -> None:
        self.tasks.append(task)
        self.active[task.number] = task
        if step_of_checkpoint(task):
            self.resumed.add(task.number)

    def stop(self, number: int) -> None:
        del self.active[number]

    def messages(self) -> Iterator[Message]:
        for task in list(self.active.values()):
            done = step_of_checkpoint(task)
            later = [s for s in task.rung_steps if s > done]
            # like a worker, tell the rung of a checkpoint again: it may not be on record
            step = done if task.number in self.resumed or not later else later[0]
            self.resumed.discard(task.number)
            if step > done:
                self.trained.append((task.seed, step))
                partial = task.folder / f"{CHECKPOINT}.partial"
                with zipfile.ZipFile(partial, "w") as archive:  # whole or not, as PyTorch's
                    archive.writestr("step", str(step))
                partial.replace(task.folder / CHECKPOINT)
            dice = self.dice(task, step)
            rung = Rung(step, {"mean": dice, "organ": dice}, 1.0, 2.0, dice)
            if task.number in self.fate:
                del self.active[task.number]
                yield self.fate[task.number]
                continue
            yield Message(task.number, "rung", rung)
            if step == task.rung_steps[-1] and task.number in self.active:
                del self.active[task.number]
                yield Message(task.number, "done", rung)


def step_of_checkpoint(task: TrialTask) -> int:
    """Return the step that a fake pool's checkpoint is of, 0 without one."""
    file = task.folder / CHECKPOINT
    if not file.is_file():
        return 0
    with zipfile.ZipFile(file) as archive:
        return int(archive.read("step"))


def fake_dataset(folder: Path, cases: int = 5) -> PreprocessedDataset:
    """Return a dataset whose cases look whole and hold nothing."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for case in (folder / "data" / f"case_{number}" for number in range(cases)):
        if not case.with_suffix(".pkl").is_file():
            np.savez(case.with_suffix(".npz"), data=0, seg=0)
            case.with_suffix(".pkl").write_bytes(pickle.dumps({}))
    settings = {"patch_size": [16, 16, 16], "spacing": [1, 1, 1], "data_identifier": "data"}
    labels = {"background": 0, "organ": 1}
    description = {"channel_names": {"0": "MR"}, "labels": labels}
    return PreprocessedDataset(folder, "Dataset901_X", "3d_fullres", {}, description, settings)


def run_fake(
    space: Path,
    out: Path,
    trials: int,
    pool: FakePool,
    *,
    resume: bool | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    terms: Terms | None = None,
    storage: str | None = None,
    groups: Path | None = None,
    **host: Any,
) -> Any:
    """Run a search in the folder with this pool, or resume the one that is there."""
    before = search.study.run.WorkerPool
    search.study.run.WorkerPool = lambda settings, jobs: pool  # type: ignore[assignment, misc]
    try:
        dataset = fake_dataset(out.parent / "preprocessed")
        given = (load_space(space), dataset, out, trials, TrainingHost(**host))
        task = SearchTask(*given, terms=terms, storage=storage, groups=groups)
        there = (out / "run.json").is_file()
        return search.study.run.run(
            task, resume=there if resume is None else resume, on_event=on_event
        )
    finally:
        search.study.run.WorkerPool = before  # type: ignore[misc]


def _killed_after(events: int, seconds: float, space: Path, out: Path, trials: int) -> int:
    """Search in a child process, kill it, and return its exit status as `os.wait` has it."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)

        def tell(event: Any) -> None:
            os.write(theirs, b".")

        try:
            run_fake(space, out, trials, FakePool(jobs=2), on_event=tell)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    os.close(theirs)
    for _ in range(events):
        if not os.read(ours, 1):  # it has ended by itself
            break
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # nothing where it has ended: it is not yet waited for
    os.close(ours)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    fake_dataset(Path(sys.argv[2]).parent / "preprocessed")  # whole, whenever a child is killed
    for line in sys.stdin:
        number, wait = line.split()
        place = (Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
        print(_killed_after(int(number), float(wait), *place), flush=True)
