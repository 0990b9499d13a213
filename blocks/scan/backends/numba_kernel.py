"""Compile kernels on first use, keep them on disk, and say so when it takes long."""

import hashlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import numpy as np
from numba import njit, typeof, types

from blocks.scan import orders

NOTICE_AFTER = 1.0
"""Seconds of silence."""

_FILES = (*sorted(Path(__file__).parent.glob("numba_*.py")), Path(orders.__file__))
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES)).hexdigest()


class Kernel:
    """A numba function compiled for arrays of any strides, once for each float type."""

    def __init__(self, function: Callable[..., None]) -> None:
        assert isinstance(function, FunctionType)
        self._function = function
        self._compiled: dict[np.dtype[Any], Callable[..., None]] = {}
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> None:
        """Run; the first argument is an array, whose float type all float arrays share."""
        dtype = args[0].dtype
        if dtype not in self._compiled:
            with self._lock:
                if dtype not in self._compiled:
                    self._compiled[dtype] = _compile(self._function, args)
        self._compiled[dtype](*args)


def _keyed(function: FunctionType) -> FunctionType:
    """Give a function a closure that holds what its compiled code depends on.

    numba's cache knows a kernel by its own file, byte code and closure: without this, a change in
    another file would leave the old code in use.
    """
    code = function.__code__.replace(co_freevars=("sources",))
    closure = (CellType(_SOURCES),)
    return FunctionType(code, function.__globals__, function.__name__, None, closure)


def _compile(function: FunctionType, args: tuple[Any, ...]) -> Callable[..., None]:
    function = _keyed(function)
    try:
        dispatcher = njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # numba finds no directory that it may write to
        dispatcher = njit(nogil=True, error_model="numpy")(function)
    done = threading.Event()
    threading.Thread(target=_notify, args=(dispatcher, done), daemon=True).start()
    try:
        dispatcher.compile(types.void(*(_any_strides(typeof(arg)) for arg in args)))
    finally:
        done.set()
    dispatcher.disable_compile()
    return dispatcher  # type: ignore[no-any-return]


def _any_strides(kind: Any) -> Any:
    return kind.copy(layout="A") if isinstance(kind, types.Array) else kind


_noticed = threading.Event()


def _notify(dispatcher: Any, done: threading.Event) -> None:
    """Say once that something is compiled, unless it is done soon or was on disk."""
    while not done.wait(NOTICE_AFTER) and not _noticed.is_set():
        stats = dispatcher.stats
        if stats.cache_misses:
            _noticed.set()
            folder = stats.cache_path
            kept = f"kept in {folder}" if folder else "not kept: no writable cache directory"
            print(f"archspec: compiling the CPU scan, once (about 10 s; {kept})", file=sys.stderr)
