"""`archspec profile` really runs, and says what it could not measure."""

import importlib.machinery
import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import archspec.costs.measure
from archspec.cli.main import app
from archspec.costs import measure
from archspec.costs.energy import EnergyCounter, energy_counter
from archspec.costs.measure import profile_plan
from archspec.costs.profile import Energy
from blocks.base import SpecError

ARGUMENTS = ["profile", "mamba-unet", "--patch", "32,32,32", "--repeats", "2"]


def test_page_and_json() -> None:
    text = CliRunner().invoke(app, ARGUMENTS, catch_exceptions=False).stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    found = json.loads(CliRunner().invoke(app, [*ARGUMENTS, "--json"]).stdout)
    measured, estimated = found["measured"], found["estimated"]
    assert 0 < measured["forward_seconds"] < 60 and 0 < measured["step_seconds"] < 60
    assert len(measured["all_step_seconds"]) == 2
    assert estimated["convention"] == "convention v1"
    assert estimated["flops"] == 2 * estimated["macs"] + estimated["scan_flops"]
    assert found["scan_backend"] in ("numba", "kscan")
    assert found["hardware"]
    assert found["versions"]["torch"] == torch.__version__


class Probe(nn.Module):
    """A network that notes what autocast computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        self.seen.add(out.dtype)
        return out


@pytest.mark.parametrize("decided", [torch.float16, torch.bfloat16, None])
@pytest.mark.parametrize("amp", [True, False, None])
def test_amp_is_in_the_precision_that_training_decides_on(
    decided: torch.dtype | None, amp: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe()
    monkeypatch.setattr(measure, "build_plan", lambda planned: probe)
    monkeypatch.setattr(measure, "autocast_dtype", lambda device: decided)
    planned = archspec.plan("small-unet", patch_size=(16, 16, 16))
    found = profile_plan(planned, amp=amp, repeats=1)
    mixed = decided is not None if amp is None else amp
    expected = (decided or torch.bfloat16) if mixed else torch.float32
    assert probe.seen == {expected}
    assert found.amp == (str(expected).removeprefix("torch.") if mixed else None)


def test_energy_is_shared_among_all_steps_that_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The counter runs over the step that warms up too."""
    steps: list[int] = []

    class PerStep:
        source = "so many joules a step"

        def joules(self) -> float:
            return 7.0 * len(steps)

    class Counted(Probe):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                steps.append(1)
            return super().forward(x)

    monkeypatch.setattr(measure, "build_plan", lambda planned: Counted())
    monkeypatch.setattr(measure, "energy_counter", lambda device: PerStep())
    found = profile_plan(archspec.plan("small-unet", patch_size=(16, 16, 16)), repeats=3)
    assert found.measured.energy.joules_per_step == 7.0


def test_page_is_narrow_whatever_the_machine_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "Maker(R) Processor(R) Platinum 99999+ with Graphics @ 9.99GHz"
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {name}\n", "utf-8")
    monkeypatch.setattr(archspec.costs.measure, "_CPUINFO", tmp_path / "cpuinfo")
    found = profile_plan(archspec.plan("small-unet", patch_size=(16, 16, 16)), repeats=1)
    assert len(name) >= 60 and found.hardware.startswith(f"{name}, ")
    reason = (
        "unavailable: [Errno 13] Permission denied: '/sys/class/powercap/intel-rapl:0/energy_uj'"
    )
    unread = replace(found.measured, energy=Energy(reason, None))
    page = replace(found, measured=unread).text()
    assert max(len(line) for line in page.splitlines()) <= 80
    assert name in " ".join(page.split()) and reason in " ".join(page.split())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_peak_memory_is_of_the_step() -> None:
    """The resident set grows by what a step needs: at least by what the estimate says is kept.

    In a process of its own, for one that freed memory before takes that and does not grow.
    """
    code = """
import json
from archspec.costs.measure import profile_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.resolve import resolve
planned = resolve("small-unet", InputSizes(patch_size=(64, 64, 64)))
print(json.dumps(profile_plan(planned, repeats=1).to_json()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    peak = found["measured"]["peak_bytes"]
    assert 0.5 * found["estimated"]["memory_bytes"] < peak < 4 * found["estimated"]["memory_bytes"]


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta"])
def test_devices_that_are_not_here(device: str) -> None:
    with pytest.raises(SpecError, match=f"device='{device}': "):
        profile_plan(archspec.plan("small-unet"), device=device)


def powercap(root: Path, *microjoules: int, most: int = 10_000_000) -> EnergyCounter:
    """Write a tree of packages whose counters end at `most`, and return the counter of all."""
    for number, value in enumerate(microjoules):
        package = root / f"intel-rapl:{number}"
        package.mkdir()
        (package / "energy_uj").write_text(f"{value}\n")
        (package / "max_energy_range_uj").write_text(f"{most}\n")
    counter = energy_counter(torch.device("cpu"), rapl=root)
    assert not isinstance(counter, str)
    return counter


def test_energy_by_rapl(tmp_path: Path) -> None:
    counter = powercap(tmp_path, 2_500_000)
    assert counter.joules() == 2.5
    assert "RAPL" in counter.source


def test_energy_goes_on_where_one_package_s_counter_wraps(tmp_path: Path) -> None:
    counter = powercap(tmp_path, 9_000_000, 4_000_000)
    start = counter.joules()
    for value, joules in ((1_000_000, 2.0), (3_000_000, 4.0), (2_000_000, 13.0)):
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text(f"{value}\n")
        assert counter.joules() - start == joules
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("5000000\n")
    assert counter.joules() - start == 14.0


def test_energy_is_that_of_the_device_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML and PyTorch count GPUs in different orders, so that they meet at the identifier."""
    joules = {"GPU-first": 1.0, "GPU-second": 2.0}
    nvml = types.ModuleType("pynvml")
    nvml.__spec__ = importlib.machinery.ModuleSpec("pynvml", None)
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: uuid  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetTotalEnergyConsumption = (  # type: ignore[attr-defined]
        lambda handle: 1e3 * joules[handle]
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def properties(device: torch.device | None = None) -> SimpleNamespace:
        index = 0 if device is None else device.index
        return SimpleNamespace(uuid=("first", "second")[index])

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    for index in range(2):
        counter = energy_counter(torch.device("cuda", index))
        assert not isinstance(counter, str)
        assert counter.joules() == index + 1


def test_energy_that_cannot_be_read(tmp_path: Path) -> None:
    found = energy_counter(torch.device("cpu"), rapl=tmp_path)
    assert isinstance(found, str)
    assert found.startswith("unavailable: no RAPL counter under ")
