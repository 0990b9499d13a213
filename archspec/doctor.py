"""What this installation can do: versions, devices, and every scan backend really run."""

import importlib.metadata
import json
import os
import platform
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from archspec.files import check_writable, make_folder, write_text
from archspec.spec.plugins import broken, installed
from blocks.errors import SpecError, render
from blocks.scan import dispatch
from blocks.scan.tuned import CHOICES, choice_key, tuned_choices, tuned_file

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

TUNED_LENGTH, TUNED_CHANNELS = 32**3, 192
"""SegMamba's second stage: long enough that the time is the kernels' and not the launches'."""
MARGIN = 1.1
"""How many times as long Triton must take before another backend is preferred to it."""


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
    components: list[str] = field(default_factory=list)

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
        lines += [f"installed component: {one}" for one in self.components]
        return "\n".join([*lines, *self.trouble])

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec doctor --json` prints."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Run every scan backend on every kind of device that is here."""
    devices = {"cpu": platform.processor() or platform.machine()}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    components, trouble = installed(), [f"broken component: {one}" for one in broken()]
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
        components=components,
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """The scan that is used from now on with each model of GPU; `problem` of those not timed."""

    file: str
    milliseconds: dict[str, dict[str, float]]
    problems: dict[str, dict[str, str]]
    used: dict[str, str]

    def text(self) -> str:
        """Return lines of at most 80 columns."""
        lines = []
        for model, used in self.used.items():
            times = [f"{name} {ms:.2f} ms" for name, ms in self.milliseconds[model].items()]
            faults = [f"{name} does not work ({why})" for name, why in self.problems[model].items()]
            lines += _wrapped(f"{model}: {', '.join(times + faults)}: {used} is used", 2)
        return "\n".join([*lines, *_wrapped(f"written to {self.file}", 2)])

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec doctor --tune --json` prints."""
        return asdict(self)


def tune() -> Tuning:
    """Time the scans that are worth it on each model of GPU here, and keep the faster one.

    Triton's is used unless another takes clearly less time: near a tie noise would choose.

    Raises:
        SpecError: there is no GPU, or the choice cannot be written.
    """
    if not torch.cuda.is_available():
        raise SpecError("only a GPU has several fast scans to choose from, and PyTorch sees none")
    make_folder(tuned_file().parent)
    check_writable(tuned_file())
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    models = {torch.cuda.get_device_name(device): device for device in reversed(devices)}
    choices = tuned_choices()
    tuning = Tuning(str(tuned_file()), {}, {}, {})
    for model, device in models.items():
        problems = {name: dispatch.why_not(name, device) for name in CHOICES}
        times = {
            name: 1e3 * _tuned_seconds(name, device)
            for name, problem in problems.items()
            if problem is None
        }
        choices.pop(choice_key(device), None)
        if len(times) > 1:
            best = min(times, key=lambda name: times[name] * (1 if name == "triton" else MARGIN))
            choices[choice_key(device)] = best
        tuning.milliseconds[model] = times
        tuning.problems[model] = {n: why for n, why in problems.items() if why is not None}
        tuning.used[model] = choices.get(choice_key(device), "triton")
    write_text(tuned_file(), json.dumps(choices, indent=2) + "\n")
    return tuning


def _tuned_seconds(name: str, device: torch.device) -> float:
    return dispatch.seconds(
        name,
        device,
        length=TUNED_LENGTH,
        channels=TUNED_CHANNELS,
        dtype=torch.bfloat16,
        repeats=9,
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
