"""Which backend `archspec doctor --tune` found fastest on this model of GPU.

Only what is written there departs from the order of the candidates: a timing in every process
would let noise choose, and with the backend the bits.
"""

import importlib.metadata
import json
import os
from pathlib import Path

import torch

CHOICES = ("triton", "mamba_ssm")
"""Backends that are worth timing against each other."""


def tuned_file() -> Path:
    """Return the user's file of choices: an object of `choice_key` to the backend's name.

    Raises:
        RuntimeError: the user has no home.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "archspec" / "scan-backends.json"


def choice_key(device: torch.device) -> str:
    """Return what a choice holds for: the model of the GPU, PyTorch and Triton."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "none"
    name = torch.cuda.get_device_name(device)
    return f"{name}; torch {torch.__version__}; triton {triton}"


def tuned_choices() -> dict[str, str]:
    """Return all choices that are kept; none where the file is missing or cannot be read."""
    try:
        found = json.loads(tuned_file().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): name for key, name in found.items() if name in CHOICES}


def tuned_backend(device: torch.device) -> str | None:
    """Return the backend that was found fastest on such a device, None where none was."""
    return tuned_choices().get(choice_key(device)) if device.type == "cuda" else None
