"""What kind of fault an error of another library is: some have no class, only words."""

import re

import torch

from blocks.errors import reason

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")
"""What PyTorch's CPU allocator, the CUDA driver and Triton, and cuDNN and cuBLAS say."""


def is_loader_lost(error: BaseException) -> bool:
    """Say whether this is about a loading process that died, or gave nothing in time.

    PyTorch raises it in the main thread when the process dies, whatever that thread is doing.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader ")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether there was not enough memory, on the host or the device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def told_by_ray(error: BaseException) -> str:
    """Return one line of what Ray says: the last exception in it, or what it was caused by.

    A machine that lacks a module says so at the end of a traceback within the text.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception) and "\n" not in str(cause):
        return f"{type(cause).__name__}: {reason(cause)}"
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .+$", str(error), re.MULTILINE)
    return raised[-1] if raised else reason(error)
