"""Weights from a file, read without running code that is in it."""

import codecs
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from archspec.network.published import plain_weights
from blocks.errors import SpecError, reason

WRAPPERS = ("state_dict", "network_weights", "model", "averaged", "net")

_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, codecs.encode),
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "bool")),
]
"""What numbers of numpy are pickled with, which nnU-Net's checkpoints hold beside the weights."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the weights in a .safetensors file or in one that torch.save wrote.

    Weights may lie under `state_dict` (Lightning, MONAI), `network_weights` (nnU-Net), `model`, or
    `net` (a trial of a search; `averaged` where it is those that were scored).

    Raises:
        SpecError: no such file, or no weights in it.
    """
    return weights_in(read_whole(path), path)


def read_whole(path: Path) -> Any:
    """Return all that such a file holds.

    Pickles are read with `weights_only=True`, which runs no code of theirs.

    Raises:
        SpecError: no such file, or it does not load that way.
    """
    if not path.is_file():
        raise SpecError("no such file", where=path)
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMBERS):
                warnings.simplefilter("ignore")  # about the age of the pickle
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile bytes raise anything
        line = reason(error)
        sentence = line.partition(". ")[0]
        why = f": {sentence}" if len(line.split()) > 2 else ""  # else a bare key or opcode
        raise SpecError(
            "not a checkpoint that loads without running code (torch.load with weights_only=True, "
            "or safetensors)",
            where=path,
            suggestion=f"{type(error).__name__}{why}",
        ) from None
    return found


def weights_in(found: Any, path: Path) -> dict[str, Tensor]:
    """Return the weights among what a file holds.

    Raises:
        SpecError: there are none.
    """
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    try:
        return plain_weights(found)
    except SpecError as error:
        raise error.at(path) from None
