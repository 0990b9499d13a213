"""What a place of another machine must have in common with the driver: data and versions."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archspec.nnunet.check_data import PATCHES
from blocks.errors import SpecError
from search.trials.own import Data, OwnCases, own_cases

_DISTRIBUTIONS = ("archspec-seg", "torch", "nnunetv2")
_ROOT = "nnUNet_preprocessed"


@dataclass(frozen=True)
class Hello:
    """What a place says of itself; `shared` must be alike everywhere, by names of things."""

    host: str
    gpu: str | None
    shared: Mapping[str, str]
    guarded: bool = True
    """Its daemon asks for Ray's token."""
    precision: str | None = None
    """What networks compute in there."""

    @property
    def name(self) -> str:
        """Return the place for people."""
        return self.host if self.gpu is None else f"{self.host} ({self.gpu})"


def hello(data: Data | None, gpu: str | None = None) -> Hello:
    """Return what this process has, of the data where there are any.

    Raises:
        SpecError: the data are not here.
    """
    guarded = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    shared = _versions() if data is None else {**_versions(), **fingerprint(data)}
    model, precision = _kind_of(gpu)
    return Hello(socket.gethostname(), model, shared, guarded, precision)


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return in words in what a place differs from the driver; nothing where it does not."""
    return ", ".join(
        f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    )


def local(data: Data) -> Data:
    """Return nnU-Net's dataset as it is on this machine: below its own nnUNet_preprocessed."""
    root = os.environ.get(_ROOT)
    if isinstance(data, OwnCases) or not root:
        return data
    return replace(data, folder=Path(root) / data.folder.name)


def fingerprint(data: Data) -> dict[str, str]:
    """Return short digests of what the data are trained by: plans, description, splits, names.

    Raises:
        SpecError: they are not here.
    """
    if isinstance(data, OwnCases):
        found = own_cases(data.given)
        return {"the cases": _digest([found.name, found.to_json(), list(found.test)])}
    if not data.data_folder.is_dir():
        raise SpecError(f"{socket.gethostname()} has no such folder", where=data.data_folder)
    names = sorted(file.stem for file in data.data_folder.glob("*.pkl"))
    if (data.data_folder / PATCHES).is_file():
        names.append(PATCHES)
    plans = data.folder / f"{data.plans.get('plans_name', 'nnUNetPlans')}.json"
    return {
        "the plans": _digest(_content(plans)),
        "dataset.json": _digest(_content(data.folder / "dataset.json")),
        "the splits": _digest(_content(data.folder / "splits_final.json")),
        "the list of cases": _digest(names),
    }


def _content(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _digest(content: Any) -> str:
    if content is None:
        return "missing"
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _versions() -> dict[str, str]:
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _kind_of(gpu: str | None) -> tuple[str | None, str | None]:
    """Return the model of the GPU and what networks compute in there; None of what nobody knows.

    Asked of the driver: a CUDA context of this process would take memory from those that train.
    """
    if gpu is None:
        return None, "float32"
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    line = [program, "--query-gpu=compute_cap,name", "--format=csv,noheader", "-i", gpu]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    capability, _, model = done.stdout.strip().partition(", ")
    if done.returncode != 0 or not model:
        return None, None
    # as `autocast_dtype` finds: GPUs since Ampere compute in bfloat16
    return model, "bfloat16" if int(capability.partition(".")[0]) >= 8 else "float16"
