"""The driver's sign of life in the storage, which Optuna gives for `optimize` only."""

import contextlib
import threading
from collections.abc import Callable, Iterable

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

INTERVAL = 30
"""Seconds between two signs of life."""
GRACE = 120
"""Seconds without one after which a driver is taken for dead."""


class Heartbeat:
    """Keep the heartbeats of the running trials fresh, from a thread, as long as it is entered."""

    def __init__(
        self,
        storage: RDBStorage,
        trial_ids: Callable[[], Iterable[int]],
        *,
        interval: float = INTERVAL,
    ) -> None:
        self._storage = storage
        self._trial_ids = trial_ids
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._interval):
            for trial_id in self._trial_ids():
                # a storage that fails just now is the driver's to report
                with contextlib.suppress(StorageInternalError):
                    self._storage.record_heartbeat(trial_id)
