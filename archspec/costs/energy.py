"""Energy counters of the machine: NVIDIA's through NVML, the processor's through RAPL."""

import importlib.util
from pathlib import Path
from typing import Protocol

import torch

_RAPL = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A counter that grows; `source` names what it measures."""

    source: str

    def joules(self) -> float:
        """Return the energy used since some moment."""
        ...


class _Nvml:
    """The whole card's energy, other programs on it included."""

    source = "NVML, the whole card"

    def __init__(self, device: torch.device) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(
            uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        )
        self.joules()

    def joules(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


class _Rapl:
    """The processor packages' energy; each package's counter wraps after minutes to hours.

    Of wraps between two calls one is seen.
    """

    source = "RAPL, all processor packages"

    def __init__(self, root: Path) -> None:
        self._packages = [_Package(file) for file in sorted(root.glob("*-rapl:[0-9]/energy_uj"))]
        if not self._packages:
            raise OSError(f"no RAPL counter under {root}")

    def joules(self) -> float:
        return sum(package.microjoules() for package in self._packages) / 1e6


class _Package:
    """One counter, from 0 to its range and from there to 0 again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._range = int((file.parent / "max_energy_range_uj").read_text("ascii"))
        self._last = self._total = int(file.read_text("ascii"))

    def microjoules(self) -> int:
        """Return the energy, with what was counted before a wrap."""
        now = int(self._file.read_text("ascii"))
        wrapped = self._range if now < self._last else 0
        self._total += now - self._last + wrapped
        self._last = now
        return self._total


def energy_counter(device: torch.device, rapl: Path = _RAPL) -> EnergyCounter | str:
    """Return the counter of a device, or why there is none."""
    if device.type == "cuda" and importlib.util.find_spec("pynvml") is None:
        return "unavailable: nvidia-ml-py is not installed"
    if device.type not in ("cpu", "cuda"):
        return f"unavailable: no counter for {device.type}"
    try:
        return _Nvml(device) if device.type == "cuda" else _Rapl(rapl)
    except Exception as error:  # whatever a driver raises
        return f"unavailable: {error}"
