"""Files that a training goes on from: written whole, and read where every byte is as written."""

import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archspec.files import replacing
from blocks.errors import reason
from search.trials.faults import is_loader_lost

CHECKPOINT = "checkpoint.pt"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, say because the disk is full."""


def write_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write the state; the file that was there stays until this one is on the disk.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        with replacing(file) as partial, partial.open("wb") as opened:
            torch.save(state, opened)  # given a path, torch hides why it cannot write
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        if is_loader_lost(error):
            raise
        raise CheckpointError(f"{file}: cannot be written: {reason(error)}") from error


def read_checkpoint(file: Path) -> dict[str, Any] | None:
    """Return the state, on the CPU; None where the file is damaged.

    An optimizer takes its states to where its parameters are, but for what belongs on the CPU.
    """
    if not is_whole(file):
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) else None


def is_whole(file: Path) -> bool:
    """Say whether the checksums in the file are right; torch reads weights without a look at them.

    A file that is not there is not whole.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile has no one error for bytes of any kind
        return False


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's random numbers, as plain data."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (str(name), np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go on drawing from these states; a GPU's are left out where another device drew them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
