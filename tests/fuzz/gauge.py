"""What a case takes: seconds of CPU, and memory beyond the imports; one without an end is ended."""

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

MAX_SECONDS = 2.0
MAX_BYTES = 2**30
_GIVEN_UP = 60
"""Seconds of CPU after which a case is ended from outside."""
_ROOM = 6 * 2**30
"""Bytes beyond the imports that a process gets at all; what asks for more fails."""


class EndlessError(BaseException):
    """A case went on and on; nothing in the product may catch it."""


@dataclass
class Taken:
    """What a block took."""

    seconds: float = 0.0


def peak() -> int:
    """Return the most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def bound_memory() -> None:
    """Give this process so much more than it has now, where the system tells."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, -1))


@contextmanager
def measured() -> Iterator[Taken]:
    """Measure the block.

    Raises:
        EndlessError: it is still running after very long.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise EndlessError(f"still running after {_GIVEN_UP} s of CPU")

    taken, before = Taken(), signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, _GIVEN_UP)
    start = time.process_time()
    try:
        yield taken
    finally:
        taken.seconds = time.process_time() - start
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
