"""A worker process: it trains the tasks that the driver sends and tells what became of them."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Literal

from archspec.files import write_text
from archspec.nnunet.check_data import PATCHES
from blocks.errors import reason
from search.trials.beats import Beat, Shared
from search.trials.own import Data, OwnCases

if TYPE_CHECKING:
    from search.trials.cases import CaseScores, TrialCases
    from search.trials.latency import Latency
    from search.trials.train import Rung, TrialTask


ENDING_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""What ends a driver, which ends its workers: they are sent to all processes of a terminal."""


@dataclass(frozen=True, eq=False)
class WorkerSettings:
    """What all trials of a run share."""

    dataset: Data
    fold: int
    batch_size: int
    threads: int
    grace: float = 300.0
    """Seconds without a sign of life after which a worker is given up."""
    held_out: tuple[str, ...] = ()
    """Cases that do not train: the test part."""
    loaders: int = 0
    """Processes that load batches ahead, for each worker; 0: they load in their steps."""


@dataclass(frozen=True)
class Message:
    """What a worker says about its trial.

    `failed` is a fault of the trial and `lost` one of its worker; `storage` says that nothing can
    be written any more, and `data` that a case cannot be used, whatever the network. These give
    their reason. With `last_words` the worker then ends. Its pool adds `beat`, see `Beating`.
    `place_lost` says of a lost one that its whole place is gone, a machine say, which tells nothing
    about the trial. `host`, `gpu` and `precision` are those of a place that is not on the
    driver's machine.
    """

    number: int
    event: Literal["rung", "done", "failed", "lost", "storage", "data", "beat"]
    rung: "Rung | None" = None
    reason: str = ""
    cases: "tuple[CaseScores, CaseScores] | None" = None
    """Scores of the validation and the test cases, where the task asks for them."""
    latency: "Latency | None" = None
    """Told with every rung, where the task asks for it."""
    last_words: bool = False
    place_lost: bool = False
    host: str | None = None
    gpu: str | None = None
    precision: str | None = None
    beat: Beat | None = None


def work(connection: Connection, settings: WorkerSettings, device: str, shared: Shared) -> None:
    """Train tasks until the driver closes the connection or dies.

    Started with `ENDING_SIGNALS` blocked, it ignores them from here on.
    """
    with _deaf():
        _work(connection, settings, device, shared)


def _work(connection: Connection, settings: WorkerSettings, device: str, shared: Shared) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    threading.Thread(target=_beat, args=(shared,), daemon=True).start()
    import torch

    torch.set_num_threads(settings.threads)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    while True:
        try:
            task: TrialTask = connection.recv()
            message = _train(task, settings, device, connection, shared.note)
            works = _free_memory(device)
            if message is not None:
                connection.send(replace(message, last_words=not works))
            if not works:
                return
        except (BrokenPipeError, EOFError):
            return


@lru_cache(maxsize=1)
def _data(settings: WorkerSettings) -> "TrialCases":
    """Open the data once per worker; a patch set and cases of one's own do not need nnU-Net."""
    dataset = settings.dataset
    if isinstance(dataset, OwnCases):
        return dataset.make()
    from search.trials.patch_set import PatchSet

    kind: Callable[..., TrialCases] = PatchSet
    if not (dataset.data_folder / PATCHES).is_file():
        from search.trials.nnunet_data import TrialData

        kind = TrialData
    return kind(
        dataset,
        fold=settings.fold,
        batch_size=settings.batch_size,
        held_out=settings.held_out,
    )


def _train(
    task: "TrialTask",
    settings: WorkerSettings,
    device: str,
    connection: Connection,
    on_step: Callable[[int, float | None], None] = lambda step, loss: None,
) -> Message | None:
    """Train one task; its faults become a message, so that one trial cannot end the search.

    None where the driver has stopped the trial: it knows.
    """
    import torch

    from archspec.network.plan import plan
    from archspec.nnunet.voxels import CaseError
    from archspec.spec.load import load
    from archspec.training.losses import DivergedError
    from search.trials.batches import Loading
    from search.trials.checkpoint import CheckpointError
    from search.trials.faults import is_loader_lost, is_out_of_memory
    from search.trials.latency import measure_latency
    from search.trials.train import Listener, StoppedError, score_trained, train

    latency: Latency | None = None

    def tell_rung(rung: "Rung") -> None:
        connection.send(Message(task.number, "rung", rung, latency=latency))
        if connection.recv() == "stop":
            raise StoppedError

    try:
        planned = plan(load(task.tree), settings.dataset.sizes)
        if task.measure_latency:
            latency = measure_latency(planned, torch.device(device))
        loading = Loading(settings.loaders, device.startswith("cuda"), settings.grace)
        listener = Listener(tell_rung, on_step)
        last = train(task, planned, _data(settings), torch.device(device), listener, loading)
        if not task.by_case:
            return Message(task.number, "done", last)
        cases = score_trained(task, planned, _data(settings), torch.device(device))
        return Message(task.number, "done", last, cases=cases)
    except (BrokenPipeError, EOFError):
        raise  # the driver is gone
    except StoppedError:
        return None
    except CaseError as error:
        return Message(task.number, "data", reason=reason(error))
    except CheckpointError as error:
        return Message(task.number, "storage", reason=reason(error))
    except DivergedError as error:
        return Message(task.number, "failed", reason=reason(error))
    except Exception as error:  # whatever it is, the reason and the traceback are kept
        if is_loader_lost(error):
            return Message(task.number, "lost", reason=reason(error))
        if is_out_of_memory(error):
            return Message(task.number, "failed", reason=f"out of memory on {device}")
        with contextlib.suppress(OSError):
            write_text(task.folder / "error.txt", traceback.format_exc())
        return Message(task.number, "failed", reason=f"{type(error).__name__}: {reason(error)}")


def _free_memory(device: str) -> bool:
    """Give back what the trial held; called when its frames, and an error's, are gone.

    False where the device no longer answers: after a fault inside a CUDA kernel it never does
    again in this process.
    """
    import torch

    gc.collect()
    if device.startswith("cuda"):
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
    return True


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ignore what ends a driver, which ends its workers.

    By a handler, for a signal that is ignored stays so in all children: processes that load would
    not end when they are asked to, and be waited for without end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def ignore(number: int, frame: object) -> None:
        if os.getpid() != own:  # forked off here
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, ignore) for number in ENDING_SIGNALS}
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _beat(shared: Shared) -> None:
    while True:
        shared.heart += 1
        time.sleep(0.5)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
