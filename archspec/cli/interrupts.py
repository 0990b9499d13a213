"""Ctrl-C, SIGTERM and SIGHUP: one line on how to go on, and an exit code of 128 and the signal."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from types import FrameType

import typer

from archspec.text import command_line

_NAMES = ("SIGTERM", "SIGHUP")
_STREAMS = (1, 2)
_ENDING = 30.0
"""Seconds without a signal after which the next one is news."""


class SignalledError(SystemExit):
    """A signal ends this process as Ctrl-C does; nothing that handles errors holds it up."""


@contextlib.contextmanager
def signals_heard() -> Iterator[None]:
    """Raise SignalledError in the main thread where SIGTERM or SIGHUP comes.

    One that is ignored, as `nohup` has it, stays so. Whoever sends one often sends several: another
    one soon after does not cut off how the first ends.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    heard = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    terminals = [stream for stream in _STREAMS if os.isatty(stream)]
    last = -math.inf

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _ENDING:
            _leave_gone(terminals)
            raise SignalledError(128 + number)

    for number in heard:
        signal.signal(number, end)
    _keep_tracker(heard)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def _keep_tracker(numbers: list[int]) -> None:
    """Start Python's tracker of semaphores, if it comes to that, with these signals blocked.

    It is deaf to Ctrl-C and SIGTERM, but a terminal that hangs up ends it: the next one knows
    nothing of the semaphores that are given back, and prints a traceback for each.
    """
    known = vars(resource_tracker)
    deaf = known.get("_IGNORED_SIGNALS", ())
    known["_IGNORED_SIGNALS"] = (*deaf, *(number for number in numbers if number not in deaf))


def _leave_gone(terminals: list[int]) -> None:
    """Turn output away from terminals that are gone: writing there is an error."""
    for stream in terminals:
        if not os.isatty(stream):
            _leave(stream)


def leave_output() -> None:
    """Print no more: what cannot be printed now cannot when the process ends either."""
    if sys.stdout is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no number
        _leave(sys.stdout.fileno())


def _leave(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


@contextlib.contextmanager
def stopped(text: Callable[[], str]) -> Iterator[None]:
    """Print the line of `text` where the block is ended from outside, and exit with its code."""
    try:
        yield
    except (KeyboardInterrupt, SignalledError) as ended:
        with contextlib.suppress(OSError):
            print(f"stopped{text()}", file=sys.stderr)
        code = ended.code if isinstance(ended, SignalledError) else 128 + signal.SIGINT
        assert isinstance(code, int)
        raise typer.Exit(code) from None


def same_command(*options: str) -> str:
    """Return the command line that was typed, with these options where they are not in it."""
    typed = sys.argv[1:]
    more = [option for option in options if option not in typed]
    return command_line("archspec", *typed, *more)
