"""What a network measured on a machine, beside what was estimated for it: data, page and JSON."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from archspec.costs.flops import CONVENTION

_WIDTH = 80
_OF_THE_PROCESS = "               (growth of the process, with workspaces and compiled kernels)"


@dataclass(frozen=True, slots=True)
class Energy:
    """The counter that was read, or why there is none and then no joules."""

    source: str
    joules_per_step: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians in seconds of the wall clock, `peak_bytes` None where the system does not tell it."""

    forward_seconds: float
    step_seconds: float
    peak_bytes: int | None
    energy: Energy
    repeats: int
    all_step_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Estimated:
    """Costs of one forward pass of the batch, and the memory of a training step."""

    flops: int
    macs: int
    scan_flops: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One network on one device; `amp` is the dtype of autocast, where it was on."""

    name: str
    input: tuple[int, ...]
    amp: str | None
    measured: Measured
    estimated: Estimated
    device: str
    hardware: str
    versions: dict[str, str]
    scan_backend: str | None
    date: str

    def text(self) -> str:
        """Return a page of at most 80 columns."""
        measured, estimated = self.measured, self.estimated
        peak, energy = measured.peak_bytes, measured.energy
        shape = " x ".join(str(n) for n in self.input)
        rate = estimated.flops / measured.forward_seconds / 1e9
        joules = energy.joules_per_step
        title = f"{self.name}: input {shape}, {self.amp or 'float32'}, {self.hardware}"
        used = f"{joules:.1f} J a step ({energy.source})" if joules else energy.source
        return "\n".join(
            [
                *_wrapped(title, "  "),
                f"forward        {measured.forward_seconds:.3f} s, "
                f"{estimated.flops / 1e9:.1f} GFLOP ({CONVENTION}): {rate:.1f} GFLOP/s",
                f"training step  {measured.step_seconds:.3f} s (medians of {measured.repeats})",
                "peak memory    "
                + ("not measured here" if peak is None else f"{peak / 2**30:.2f} GiB measured")
                + f", {estimated.memory_bytes / 2**30:.2f} GiB estimated for tensors",
                *([_OF_THE_PROCESS] if self.device == "cpu" else []),
                *_wrapped(f"energy         {used}", " " * 15),
                f"scan backend   {self.scan_backend or 'no scan in it'}",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec profile --json` prints."""
        measured, energy = self.measured, self.measured.energy
        joules = energy.joules_per_step
        return {
            "name": self.name,
            "input": list(self.input),
            "amp": self.amp,
            "measured": {
                "forward_seconds": measured.forward_seconds,
                "step_seconds": measured.step_seconds,
                "peak_bytes": measured.peak_bytes,
                "energy": {
                    "source": energy.source,
                    **({} if joules is None else {"joules_per_step": joules}),
                },
                "repeats": measured.repeats,
                "all_step_seconds": list(measured.all_step_seconds),
            },
            "estimated": {"convention": CONVENTION, **asdict(self.estimated)},
            "device": self.device,
            "hardware": self.hardware,
            "versions": dict(self.versions),
            "scan_backend": self.scan_backend,
            "date": self.date,
        }


def _wrapped(text: str, indent: str) -> list[str]:
    """Return lines of at most 80 columns; names of machines and their errors may be long."""
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
