"""The engine of a Ray cluster: seats on its nodes, each an actor, of which the driver asks one call
at a time.

Ray tries nothing again by itself: whatever becomes of a call, the owner of the trial decides.
"""

import contextlib
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from blocks.errors import AbsentError, SpecError
from search.trials.faults import told_by_ray
from search.trials.handshake import Hello, differences, hello
from search.trials.host import Cluster, TrainingHost
from search.trials.ray_connection import GUARD, connected, is_loopback
from search.trials.seat import Seat
from search.trials.worker import Message, WorkerSettings

if TYPE_CHECKING:
    from search.trials.engine import MakeEngine
    from search.trials.train import TrialTask

PATIENCE = 120.0
"""Seconds in which a first place must come, or one be back where none is left."""
_TRIES = 5
"""Places that may die one after the other before they have said a word."""


def engine_of(host: TrainingHost) -> "MakeEngine | None":
    """Return what makes the engine of the host's cluster; None where this machine trains."""
    cluster = host.cluster
    if cluster is None:
        return None
    return lambda settings, devices: RayEngine(settings, devices, cluster)


@dataclass(eq=False)
class _Place:
    """The driver's end of one seat: `call` is what is asked of it, `number` the trial it has."""

    actor: Any
    call: Any
    hello: Hello | None = None
    number: int | None = None
    stopping: bool = False
    tries: int = 1


class RayEngine:
    """As many seats as devices, wherever the cluster has room; see `Engine`."""

    def __init__(self, settings: WorkerSettings, devices: list[str], cluster: Cluster) -> None:
        self._settings = settings
        self._devices = devices
        self._cluster = cluster
        self._places: list[_Place] = []
        self._ray: Any = None

    def __enter__(self) -> "RayEngine":
        self._here = hello(self._settings.dataset)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._ray = stack.enter_context(connected(self._cluster, len(self._devices)))
            self._places = [self._new() for _ in self._devices]
            self._await()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for place in self._places:
            self._end(place)
        self._stack.close()

    @property
    def num_idle(self) -> int:
        idle = sum(_is_idle(place) for place in self._places)
        return idle or int(not self.num_busy)  # `submit` waits until one is back

    @property
    def num_busy(self) -> int:
        return sum(place.number is not None for place in self._places)

    def submit(self, task: "TrialTask") -> None:
        """Give the task to an idle seat; where all are lost, wait until one is back."""
        self._await()
        place = next(place for place in self._places if _is_idle(place))
        place.number, place.stopping = task.number, False
        task = replace(task, folder=task.folder.absolute())
        place.call = place.actor.train.remote(task)

    def stop(self, number: int) -> None:
        """End the trial; to be called while its rung, as `messages` yielded it, is handled."""
        next(place for place in self._places if place.number == number).stopping = True

    def messages(self) -> Iterator[Message]:
        """Wait a second for busy seats, then yield what they have said."""
        for place in self._called(timeout=1.0):
            number = place.number
            if number is None:
                self._greet(place)
                continue
            assert place.hello is not None
            found_at = place.hello
            try:
                found = self._answer(place)
            except self._ray.exceptions.RayError as error:
                told = f"{found_at.name} is lost: {told_by_ray(error)}"
                self._replace(place)
                yield _signed(Message(number, "lost", reason=told, place_lost=True), found_at)
                continue
            assert isinstance(found, Message), "a trial that goes on says something"
            if found.event != "rung":
                place.number, place.call = None, None
            yield _signed(found, found_at)
            if found.event == "rung":
                place.call = place.actor.go_on.remote(stop=place.stopping)
                if place.stopping:  # what is asked next waits until this is done
                    place.number, place.call = None, None

    def _called(self, *, timeout: float) -> list[_Place]:
        """Return the places that have answered; wait so long where none has."""
        calls = {place.call: place for place in self._places if place.call is not None}
        if not calls:
            return []
        done, left = self._ray.wait(list(calls), timeout=timeout)
        more, _ = self._ray.wait(left, num_returns=len(left), timeout=0) if left else ([], [])
        return [calls[call] for call in (*done, *more)]

    def _answer(self, place: _Place) -> Any:
        """Return what the place has answered.

        Raises:
            SpecError: that is the answer, or the seat has a fault of ours or of its installation.
            RayError: the place is lost.
        """
        try:
            found = self._ray.get(place.call)
        except self._ray.exceptions.RayTaskError as error:
            where = "a place" if place.hello is None else place.hello.name
            raise SpecError(f"{where} cannot train: {told_by_ray(error)}") from error
        if isinstance(found, SpecError):
            raise found
        return found

    def _new(self, tries: int = 1) -> _Place:
        """Ask the cluster for a seat; it comes when there is room for it."""
        cluster, gpu = self._cluster, bool(self._cluster.gpus_per_job)
        made = self._ray.remote(Seat).options(
            num_cpus=cluster.cpus_per_job,
            num_gpus=cluster.gpus_per_job,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        named = first_gpu if gpu else no_gpu
        given = (pickle.dumps(self._settings), sys.path, self._devices[0], cluster.cpus_per_job)
        actor = made.remote(*given, named)
        return _Place(actor, actor.hello.remote(), tries=tries)

    def _greet(self, place: _Place) -> None:
        """Look at what a new place says of itself.

        Raises:
            SpecError: it differs from the driver in what must be alike, or none starts.
        """
        try:
            found = self._answer(place)
        except self._ray.exceptions.RayError as error:
            if place.tries >= _TRIES or getattr(error, "actor_init_failed", False):
                raise SpecError(f"no place starts: {told_by_ray(error)}") from error
            self._replace(place, tries=place.tries + 1)
            return
        assert isinstance(found, Hello)
        wrong = differences(self._here.shared, found.shared)
        if wrong:
            raise SpecError(
                f"{wrong}",
                where=found.name,
                suggestion="install and preprocess alike on all machines",
            )
        if not found.guarded and not is_loopback(self._cluster.address):
            raise SpecError(
                "its Ray daemon runs programs of whoever reaches it",
                where=found.name,
                suggestion=GUARD,
            )
        place.hello, place.call = found, None

    def _replace(self, place: _Place, *, tries: int = 1) -> None:
        self._end(place)
        self._places[self._places.index(place)] = self._new(tries)

    def _end(self, place: _Place) -> None:
        with contextlib.suppress(Exception):  # whatever is left of it goes with the connection
            self._ray.kill(place.actor, no_restart=True)

    def _await(self) -> None:
        """Wait until a place is idle.

        Raises:
            AbsentError: none is within `PATIENCE`.
        """
        until = time.monotonic() + PATIENCE
        while not any(map(_is_idle, self._places)):
            for place in self._called(timeout=1.0):
                if place.number is None:
                    self._greet(place)
            if time.monotonic() > until and not any(map(_is_idle, self._places)):
                has = self._ray.cluster_resources()
                raise AbsentError(
                    f"no place came within {PATIENCE:.0f} s: each asks for "
                    f"{_asked(self._cluster.cpus_per_job, self._cluster.gpus_per_job)}, and the "
                    f"cluster has {_asked(has.get('CPU', 0), has.get('GPU', 0))}",
                    suggestion="see ray status",
                )


def _signed(message: Message, place: Hello) -> Message:
    """Return the message with where it comes from."""
    return replace(message, host=place.host, gpu=place.gpu, precision=place.precision)


def _is_idle(place: _Place) -> bool:
    return place.number is None and place.hello is not None


def _asked(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs and {gpus:g} GPUs"


def first_gpu() -> str | None:
    """Return the GPU of this seat as the machine calls it."""
    import ray

    found = ray.get_gpu_ids()
    return str(found[0]) if found else None


def no_gpu() -> str | None:
    """Return that the seat has none."""
    return None
