"""The engine of seats with real workers, on a Ray that is made up: its actors are threads here."""

import pickle
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

import search.trials.ray_engine
from search.trials.host import Cluster
from search.trials.ray_engine import RayEngine
from search.trials.seat import Seat
from search.trials.worker import WorkerSettings


class _Actor:
    """A seat that does one call after the other; what goes there and back is pickled, as by Ray."""

    def __init__(self, *given: Any) -> None:
        self.seat = Seat(*given)
        self.calls = ThreadPoolExecutor(max_workers=1)
        self.hello, self.train, self.go_on = (
            SimpleNamespace(remote=self._asker(name)) for name in ("hello", "train", "go_on")
        )

    def _asker(self, name: str) -> Any:
        def call(given: bytes) -> bytes:
            args, named = pickle.loads(given)
            return pickle.dumps(getattr(self.seat, name)(*args, **named))

        return lambda *args, **named: self.calls.submit(call, pickle.dumps((args, named)))


class ThreadedRay:
    """As much of the module as the engine uses; no place is ever lost."""

    exceptions = SimpleNamespace(
        RayError=type("RayError", (Exception,), {}), RayTaskError=type("Task", (Exception,), {})
    )

    def remote(self, kind: type[Seat]) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=_Actor))

    def wait(self, calls: list[Future[bytes]], num_returns: int = 1, timeout: float = 0) -> Any:
        wait(calls, timeout, FIRST_COMPLETED)
        done = [call for call in calls if call.done()][:num_returns]
        return done, [call for call in calls if call not in done]

    def get(self, call: Future[bytes]) -> Any:
        return pickle.loads(call.result())

    def kill(self, actor: _Actor, *, no_restart: bool) -> None:
        assert no_restart
        actor.calls.shutdown()
        if actor.seat._pool is not None:
            actor.seat._pool.__exit__(None, None, None)


class ThreadedRayEngine(RayEngine):
    """Made of settings and devices, as a pool of this machine."""

    def __init__(self, settings: WorkerSettings, devices: list[str]) -> None:
        super().__init__(settings, devices, Cluster(address="127.0.0.1:1"))

    def __enter__(self) -> Self:
        made_up = nullcontext(ThreadedRay())
        with patch.object(search.trials.ray_engine, "connected", return_value=made_up):
            super().__enter__()
        return self
