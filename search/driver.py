"""Worker processes that train trials, under one driver that owns the study.

A worker imports torch and nnU-Net once and then trains trial after trial. It ends itself when the
driver is gone, so a killed search leaves no process behind.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Literal

from archspec.nnunet_dataset import PreprocessedDataset

if TYPE_CHECKING:
    from search.data import TrialData
    from search.trial import Rung, TrialTask


@dataclass(frozen=True, eq=False)
class WorkerSettings:
    """What all trials of a run share."""

    dataset: PreprocessedDataset
    fold: int
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Message:
    """What a worker says about its trial; `reason` is set where the trial failed."""

    number: int
    event: Literal["rung", "done", "failed"]
    rung: "Rung | None" = None
    reason: str = ""


class WorkerPool:
    """As many workers as devices; each trains one trial at a time."""

    def __init__(self, settings: WorkerSettings, devices: list[str]) -> None:
        self._settings = settings
        self._workers = [_Worker(settings, device) for device in devices]

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
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
            self._workers[index] = _Worker(self._settings, self._workers[index].device)
        self._workers[index].start(task)

    def messages(self) -> Iterator[Message]:
        """Wait for busy workers, then yield what they have said.

        A worker that told of a rung goes on when the caller is done with that message, so that
        nothing is trained beyond a rung that is not on record. A worker that died (out of memory,
        say) is reported as a failed trial.
        """
        busy = {w.connection: w for w in self._workers if w.number is not None}
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            assert worker.number is not None
            try:
                message: Message = connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                code = worker.process.exitcode
                message = Message(worker.number, "failed", reason=f"worker ended with code {code}")
            if message.event != "rung":
                worker.number = None
            yield message
            if message.event == "rung":
                with contextlib.suppress(OSError):  # dead by now: the next call will find out
                    connection.send("go on")


class _Worker:
    """The driver's end of one worker process."""

    def __init__(self, settings: WorkerSettings, device: str) -> None:
        # spawn: a forked child would inherit torch's threads and CUDA state half-alive
        context = multiprocessing.get_context("spawn")
        self.device = device
        self.number: int | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, settings, device), daemon=True)
        with _interrupts_ignored():
            self.process.start()
        theirs.close()

    def start(self, task: "TrialTask") -> None:
        self.number = task.number
        with contextlib.suppress(OSError):  # it just died: messages() will find that out
            self.connection.send(task)

    def stop(self) -> None:
        self.connection.close()  # an idle worker then returns by itself
        if self.number is None:
            self.process.join(timeout=10)
        self.process.terminate()
        self.process.join()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start children that ignore Ctrl-C, which a terminal sends to all: the driver ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection, settings: WorkerSettings, device: str) -> None:
    """Train tasks until the driver closes the connection or dies."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(settings.threads)
    while True:
        try:
            task: TrialTask = connection.recv()
            connection.send(_train(task, settings, device, connection))
        except (BrokenPipeError, EOFError):
            return


@lru_cache(maxsize=1)
def _data(settings: WorkerSettings) -> "TrialData":
    """Open the dataset once per worker."""
    from search.data import TrialData

    return TrialData(settings.dataset, fold=settings.fold, batch_size=settings.batch_size)


def _train(
    task: "TrialTask", settings: WorkerSettings, device: str, connection: Connection
) -> Message:
    """Train one task; its faults become a message, so that one trial cannot end the search."""
    import torch

    from archspec.loading import load
    from archspec.planning import plan
    from search.trial import DivergedError, train

    def tell_rung(rung: "Rung") -> None:
        connection.send(Message(task.number, "rung", rung))
        connection.recv()

    dataset = settings.dataset
    try:
        planned = plan(
            load(task.tree),
            in_channels=dataset.num_channels,
            num_classes=dataset.num_classes,
            patch_size=dataset.patch_size,
        )
        last = train(
            task,
            planned,
            _data(settings),
            torch.device(device),
            tell_rung,
        )
        return Message(task.number, "done", last)
    except (BrokenPipeError, EOFError):
        raise  # the driver is gone
    except DivergedError as error:
        return Message(task.number, "failed", reason=str(error))
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return Message(task.number, "failed", reason="out of GPU memory")
    except Exception as error:  # whatever it is, the reason and the traceback are kept
        (task.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return Message(task.number, "failed", reason=f"{type(error).__name__}: {error}")


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
