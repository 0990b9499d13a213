"""What this installation can do: versions, devices, and every scan backend really run."""

import importlib.metadata
import os
import platform
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

import torch

from blocks.errors import SpecError, render
from blocks.scan import dispatch

DISTRIBUTIONS = (
    "archspec-seg",
    "torch",
    "numpy",
    "numba",
    "triton",
    "mamba-ssm",
    "causal-conv1d",
    "nnunetv2",
    "optuna",
    "timm",
)


@dataclass(frozen=True, slots=True)
class BackendReport:
    """One scan backend on one device; `milliseconds` where it works and is meant for speed."""

    name: str
    problem: str | None
    milliseconds: float | None
    used: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`scans` maps a device to its backends; `trouble` says in a line what to mend."""

    python: str
    system: str
    threads: int
    versions: dict[str, str | None]
    cuda: str | None
    devices: dict[str, str]
    forced: str | None
    scans: dict[str, list[BackendReport]]
    trouble: list[str]

    def text(self) -> str:
        """Return a page for a terminal, 80 columns; below it a line of any length per trouble."""
        lines = [f"Python {self.python}, {self.system}, {self.threads} thread(s)"]
        lines += [
            f"  {name:16}{version or 'not installed'}" for name, version in self.versions.items()
        ]
        build = f"built for CUDA {self.cuda}" if self.cuda else "a build without CUDA"
        lines += _wrapped(
            f"PyTorch is {build}; device: {self.devices.get('cuda', 'no CUDA device')}", 2
        )
        if self.forced:
            lines.append(f"{dispatch.VARIABLE}={self.forced} forces the scan backend")
        for device, backends in self.scans.items():
            lines.append(f"selective scan on {device}, {dispatch.TIMED}:")
            for backend in backends:
                time = "" if backend.milliseconds is None else f"{backend.milliseconds:9.1f} ms"
                result = f"no: {backend.problem}" if backend.problem else f"works {time}"
                lines += _wrapped(f"  {backend.name:12}{result}{'   <- used' * backend.used}", 14)
        return "\n".join([*lines, *self.trouble])

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec doctor --json` prints."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Run every scan backend on every kind of device that is here."""
    devices = {"cpu": platform.processor() or platform.machine()}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    trouble: list[str] = []
    return Diagnosis(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
        versions={name: _version(name) for name in DISTRIBUTIONS},
        cuda=torch.version.cuda,
        devices=devices,
        forced=os.environ.get(dispatch.VARIABLE) or None,
        scans={device: _scans(device, trouble) for device in devices},
        trouble=trouble,
    )


def _wrapped(text: str, indent: int) -> list[str]:
    """Return lines of 80 columns: how long names and errors are is the machine's matter."""
    return textwrap.wrap(text, 80, subsequent_indent=" " * indent, break_on_hyphens=False)


def _scans(device: str, trouble: list[str]) -> list[BackendReport]:
    try:
        used = dispatch.chosen(torch.device(device))
    except SpecError as error:
        used = ""
        trouble.append(render(error.problems))
    reports = []
    for name in dispatch.candidates(device):
        problem = dispatch.why_not(name, device)
        timed = problem is None and name != "reference"
        milliseconds = 1e3 * dispatch.seconds(name, device) if timed else None
        reports.append(BackendReport(name, problem, milliseconds, name == used))
    if reports[0].problem is not None:
        trouble.append(f"the fast scan on {device} is missing: {reports[0].problem}")
    return reports


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
