"""An engine that trains in this process, with what a spawned worker would have been sent."""

import pickle
from collections.abc import Iterator
from typing import Any

from search.trials.beats import Beat
from search.trials.train import TrialTask
from search.trials.worker import Message, WorkerSettings, _train


class _Connection:
    """The worker's end: what it tells is kept, and every rung is answered to go on."""

    def __init__(self) -> None:
        self.told: list[Message] = []

    def send(self, message: Message) -> None:
        self.told.append(message)

    def recv(self) -> str:
        return "go on"


class InlinePool:
    """One place; a trial is trained to its end when it is asked for its messages."""

    def __init__(self, settings: WorkerSettings, devices: list[str]) -> None:
        self.settings: WorkerSettings = pickle.loads(pickle.dumps(settings))
        self.task: TrialTask | None = None
        self.telling = False

    def __enter__(self) -> "InlinePool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def num_busy(self) -> int:
        return int(self.task is not None)

    @property
    def num_idle(self) -> int:
        return 1 - self.num_busy

    def submit(self, task: TrialTask) -> None:
        self.task = task

    def stop(self, number: int) -> None:
        raise AssertionError("searches with this engine stop nothing")

    def tell_beats(self) -> None:
        self.telling = True

    def messages(self) -> Iterator[Message]:
        assert self.task is not None
        task, connection = self.task, _Connection()

        def tell(step: int, loss: float | None) -> None:
            if self.telling:
                connection.send(Message(task.number, "beat", beat=Beat(step, loss)))

        last = _train(task, self.settings, "cpu", as_connection(connection), tell)
        yield from connection.told
        self.task = None
        assert last is not None
        yield last


def as_connection(connection: _Connection) -> Any:
    """Return it for the type checker: it has as much of one as is used."""
    return connection
