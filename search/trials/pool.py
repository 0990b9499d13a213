"""The local engine: the driver's pool of worker processes, which train trials.

A worker imports torch and nnU-Net once and then trains trial after trial. It ends itself when the
driver is gone, so a killed search leaves no process behind.
"""

import atexit
import contextlib
import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawValue
from typing import TYPE_CHECKING

from search.trials.batches import num_loaders
from search.trials.beats import Pulse, Shared
from search.trials.worker import ENDING_SIGNALS, Message, WorkerSettings, work

if TYPE_CHECKING:
    from search.trials.train import TrialTask


class WorkerPool:
    """As many workers as devices; each trains one trial at a time."""

    def __init__(self, settings: WorkerSettings, devices: list[str]) -> None:
        self._settings = settings
        self._workers = [_Worker(settings, device, len(devices)) for device in devices]
        self._telling = False

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.connection.close()  # an idle one then returns by itself
        for worker in self._workers:
            worker.stop()

    @property
    def num_idle(self) -> int:
        return sum(worker.number is None for worker in self._workers)

    @property
    def num_busy(self) -> int:
        return len(self._workers) - self.num_idle

    def submit(self, task: "TrialTask") -> None:
        """Give the task to an idle worker; one that died is replaced."""
        index = next(i for i, worker in enumerate(self._workers) if worker.number is None)
        if not self._workers[index].process.is_alive():
            self._replace(index)
        self._workers[index].start(task)

    def stop(self, number: int) -> None:
        """End the trial; to be called while its rung, as `messages` yielded it, is handled."""
        next(w for w in self._workers if w.number == number).stopping = True

    def tell_beats(self) -> None:
        self._telling = True

    def messages(self) -> Iterator[Message]:
        """Wait a second for busy workers, then yield what they have said.

        A worker that told of a rung goes on when the caller is done with that message, so that
        nothing is trained beyond a rung that is not on record. A worker that died (out of memory,
        say) or stalled is given up, and its trial reported as lost.
        """
        busy = {w.connection: w for w in self._workers if w.number is not None}
        for connection in wait(list(busy), timeout=1):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            assert worker.number is not None
            try:
                message: Message = connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                code = worker.process.exitcode
                message = Message(worker.number, "lost", reason=f"worker ended with code {code}")
            if message.event != "rung":
                worker.number = None
            if message.last_words:
                worker.process.join(timeout=10)  # the next trial is not for it
            yield message
            if message.event == "rung":
                worker.answer()
        for worker in self._workers if self._telling else ():
            if worker.number is not None and (beat := worker.pulse.news()) is not None:
                yield Message(worker.number, "beat", beat=beat)
        for index, worker in enumerate(self._workers):
            if worker.number is not None and worker.silence() > self._settings.grace:
                number = worker.number
                worker.give_up()
                self._replace(index)
                reason = f"worker gave no sign of life for {self._settings.grace:.0f} s"
                yield Message(number, "lost", reason=reason)

    def _replace(self, index: int) -> None:
        device = self._workers[index].device
        self._workers[index] = _Worker(self._settings, device, len(self._workers))


class _Worker:
    """The driver's end of one worker process."""

    def __init__(self, settings: WorkerSettings, device: str, num_workers: int) -> None:
        settings = replace(settings, loaders=num_loaders(device, num_workers))
        # spawn: a forked child would inherit torch's threads and CUDA state half-alive
        context = multiprocessing.get_context("spawn")
        self.device = device
        self.number: int | None = None
        self.stopping = False
        self.shared = RawValue(Shared)
        self.pulse = Pulse(self.shared)
        self._silence, self._heard, self._looked = 0.0, 0, time.monotonic()
        self.connection, theirs = context.Pipe()
        # not a daemon: those may not have children, and the loading processes are its children
        self.process = context.Process(target=work, args=(theirs, settings, device, self.shared))
        with _signals_blocked():
            self.process.start()
        atexit.register(self.process.kill)  # a driver that ends in a hurry waits for nobody
        theirs.close()

    def start(self, task: "TrialTask") -> None:
        self.number = task.number
        self.pulse.restart()
        with contextlib.suppress(OSError):  # it just died: messages() will find that out
            self.connection.send(task)

    def answer(self) -> None:
        """Let the trial go on from its rung, or end it there."""
        with contextlib.suppress(OSError):  # dead by now: messages() will find that out
            self.connection.send("stop" if self.stopping else "go on")
        if self.stopping:
            self.number, self.stopping = None, False

    def silence(self) -> float:
        """Return the seconds since the worker's heart beat, as far as this process was awake."""
        now, beats = time.monotonic(), self.shared.heart
        self._silence += min(now - self._looked, 5.0)
        if beats != self._heard:
            self._silence, self._heard = 0.0, beats
        self._looked = now
        return self._silence

    def give_up(self) -> None:
        """Kill the worker without waiting: one that hangs in the system cannot be killed yet."""
        self.connection.close()
        self.process.kill()

    def stop(self) -> None:
        if self.number is None:
            self.process.join(timeout=10)
        self.process.kill()
        self.process.join()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start children that no signal ends which a terminal or a batch system sends to all.

    The driver hears it and ends them. Blocked signals are inherited, and come to this thread when
    the block ends; ignored ones would be lost.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started by the first child else, it would unblock some
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
