"""What a search notes about itself whenever it starts or goes on, for its report to tell.

One line of JSON per start in `sessions.jsonl` of the run folder.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archspec.network.input_sizes import InputSizes
from archspec.text import command_line
from blocks.scan.dispatch import VARIABLE, candidates
from search.trials.host import TrainingHost
from search.trials.lines import append_line, read_lines
from search.trials.own import Data, OwnCases

SESSIONS = "sessions.jsonl"
_DISTRIBUTIONS = ("archspec-seg", "torch", "nnunetv2", "optuna", "numpy", "numba", "triton")


def note_session(
    folder: Path,
    dataset: Data,
    host: TrainingHost,
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Add a line: date, command, versions, devices, cases of each part, sizes of the networks.

    And what is not None of what is `asked`: the `sampler`, as a space writes it, where it is not
    the usual one; the `trials`, and the `seconds` after which none is begun; the digest of the
    `protocol`, where the run has one.
    """
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv),
        "versions": {"python": platform.python_version(), **_versions()},
        "devices": _devices(host),
        "threads": host.threads,
        "scan_backend": _scan_backend(host.devices[0]),
        "split": data_split(dataset, host.fold),
        "input": {
            "in_channels": dataset.sizes.in_channels,
            "num_classes": dataset.sizes.num_classes,
            "patch_size": list(dataset.patch_size),
        },
    }
    record |= {name: value for name, value in (asked or {}).items() if value is not None}
    append_line(folder / SESSIONS, record)


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Return what was noted; nothing for a run of a release that noted nothing.

    Raises:
        SpecError: a line is damaged; one that a kill cut off is left out.
    """
    told = "take the line out: it tells of one start of the search, and only its report reads it"
    return [record for _, record in read_lines(folder / SESSIONS, suggestion=told)]


def noted_sizes(session: Mapping[str, Any]) -> InputSizes | None:
    """Return what the session's networks are planned for; None where a release noted nothing."""
    noted = session.get("input")
    if not noted:
        return None
    return InputSizes(
        in_channels=noted["in_channels"],
        num_classes=noted["num_classes"],
        patch_size=tuple(noted["patch_size"]),
    )


def data_split(dataset: Data, fold: int) -> dict[str, list[str]]:
    """Return the cases that train and those that validate, as nnU-Net splits them.

    Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/utilities/crossval_split.py (2.8.1): five folds of
    scikit-learn's KFold, shuffled with seed 12345; done here without importing either. One's own
    cases do not name those that train.
    """
    if isinstance(dataset, OwnCases):
        parts = {"validation": dataset.validation, "test": dataset.test}
        return {part: list(cases) for part, cases in parts.items() if cases}
    file = dataset.folder / "splits_final.json"
    if file.is_file():
        chosen = json.loads(file.read_text(encoding="utf-8"))[fold]
        return {"training": list(chosen["train"]), "validation": list(chosen["val"])}
    cases = sorted(path.stem for path in dataset.data_folder.glob("*.pkl"))
    order = np.arange(len(cases))
    np.random.RandomState(12345).shuffle(order)
    validation = {int(index) for index in np.array_split(order, 5)[fold]}
    return {
        "training": [case for index, case in enumerate(cases) if index not in validation],
        "validation": [case for index, case in enumerate(cases) if index in validation],
    }


def _command(argv: Sequence[str]) -> str:
    """Return the command line; the program by its name, without its folder."""
    program = Path(argv[0])
    if program.name == "__main__.py":
        return command_line("python", "-m", program.parent.name, *argv[1:])
    return command_line(program.name, *argv[1:])


def _versions() -> dict[str, str]:
    """Return the versions of what is installed; asking for them imports nothing."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _devices(host: TrainingHost) -> list[str]:
    """Return what trains, one by one; of a cluster its places: trials tell where each was."""
    if host.cluster is not None:
        return [f"a place of {host.cluster.text}"] * len(host.devices)
    return [_device_name(device) for device in host.devices]


def _device_name(device: str) -> str:
    if device.startswith("cuda") and torch.cuda.is_available():
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.processor() or platform.machine()}"


def _scan_backend(device: str) -> str:
    """Return what scans, without trying it: that would compile kernels in the driver."""
    forced = os.environ.get(VARIABLE)
    if forced:
        return f"{forced} ({VARIABLE})"
    return f"the first that works of {', '.join(candidates(device.partition(':')[0]))}"
