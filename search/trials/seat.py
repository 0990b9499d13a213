"""A place on another machine: a pool of one worker, which whoever holds the seat asks by calls.

Each call ends with the next message, so that one is outstanding at a time. What notices a worker
that hangs, a GPU that no longer answers or a loader that died is the pool, as on the driver's own
machine.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.errors import SpecError
from search.trials.engine import Engine
from search.trials.handshake import Hello, hello, local
from search.trials.worker import Message, WorkerSettings

if TYPE_CHECKING:
    from search.trials.train import TrialTask

_PATIENCE = 60.0
"""Seconds in which a folder that the driver has just made must be seen here too."""


def local_pool(settings: WorkerSettings, devices: list[str]) -> Engine:
    """Return worker processes of this machine."""
    from search.trials.pool import WorkerPool

    return WorkerPool(settings, devices)


class Seat:
    """What a place does when it is asked. A SpecError is an answer: raised, it would lose its type.

    It takes pickled WorkerSettings, and where the driver finds modules. `gpu` returns what the
    machine calls its GPU, of which the worker sees no other one.
    """

    def __init__(
        self,
        settings: bytes,
        path: Sequence[str],
        device: str,
        cpus: int,
        gpu: Callable[[], str | None],
        make_pool: Callable[[WorkerSettings, list[str]], Engine] = local_pool,
    ) -> None:
        # modules of the user's own lie where the driver has them, as for its own workers
        sys.path += [one for one in path if one not in sys.path]
        found: WorkerSettings = pickle.loads(settings)
        # a place has no more processors than it asked for, whatever the machine has
        os.environ.setdefault("nnUNet_n_proc_DA", str(max(cpus - 1, 1)))
        os.environ["OMP_NUM_THREADS"] = str(found.threads)
        self._settings = replace(found, dataset=local(found.dataset))
        self._device = device
        self._gpu = gpu
        self._make_pool = make_pool
        self._pool: Engine | None = None
        self._said: Iterator[Message] | None = None
        self._number = -1

    def hello(self) -> Hello | SpecError:
        """Say where this is and what is there, before anything is trained."""
        try:
            return hello(self._settings.dataset, self._gpu())
        except SpecError as error:
            return error

    def train(self, task: "TrialTask") -> Message | SpecError | None:
        """Train; return the first message about it."""
        try:
            _wait_for(task.folder)
            if self._pool is None:
                self._pool = self._make_pool(self._settings, [self._device])
            self._number, self._said = task.number, None
            self._pool.submit(task)
            return self._next()
        except SpecError as error:
            return error

    def go_on(self, *, stop: bool) -> Message | SpecError | None:
        """Go on from the rung that was told last, or end there; return what is said next."""
        assert self._pool is not None
        try:
            if stop:
                self._pool.stop(self._number)
            return self._next()
        except SpecError as error:
            return error

    def _next(self) -> Message | None:
        """Return the next message; None where the trial was stopped, and says nothing more.

        A rung is answered when the pool is asked for what comes after it, and so not before.
        """
        assert self._pool is not None
        while self._said is not None or self._pool.num_busy:
            if self._said is None:
                self._said = self._pool.messages()
            for message in self._said:
                return message
            self._said = None
        return None


def _wait_for(folder: Path) -> None:
    """Wait until the folder of the trial is seen: network drives take their time.

    Raises:
        SpecError: it is not.
    """
    until = time.monotonic() + _PATIENCE
    while not folder.is_dir():
        if time.monotonic() > until:
            raise SpecError(
                "is not seen by a machine that is to train there",
                where=folder,
                suggestion="let the run folder be on a path that all machines share",
            )
        time.sleep(0.5)
