"""`archspec doctor` runs the backends and says which one is used."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from archspec.cli.main import app
from archspec.doctor import BackendReport, Diagnosis
from blocks.scan import dispatch, tuned


def doctor(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *options])
    return result.exit_code, result.stdout


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without the timing, which is of the slow backends as well."""
    monkeypatch.setattr(dispatch, "seconds", lambda name, device, **_: 0.01)


def test_every_backend_of_the_cpu_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    code, text = doctor("--json")
    found = json.loads(text)
    backends = {backend["name"]: backend for backend in found["scans"]["cpu"]}
    assert tuple(backends) == dispatch.candidates("cpu")
    assert code == 0, found["trouble"]
    assert all(backend["problem"] is None for backend in backends.values())
    used = [backend for backend in backends.values() if backend["used"]]
    assert [backend["name"] for backend in used] == [dispatch.candidates("cpu")[0]]
    assert used[0]["milliseconds"] > 0
    assert found["versions"]["torch"]


@pytest.mark.usefixtures("untimed")
def test_forced_backend_is_the_one_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "kscan")
    code, text = doctor()
    assert code == 0
    used = [line for line in text.splitlines() if "<- used" in line]
    assert used
    assert all(line.split()[0] == "kscan" for line in used)
    assert "ARCHSPEC_SCAN=kscan forces the scan backend" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.usefixtures("untimed")
def test_trouble_is_told_and_ends_in_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "fast")
    code, text = doctor()
    assert code == 1
    assert "ARCHSPEC_SCAN=fast: not a scan backend" in text.splitlines()[-1]


def test_page_is_narrow_whatever_the_machine_says() -> None:
    device, problem = "NVIDIA " + "a long name " * 5, "RuntimeError: " + "no such thing here " * 5
    page = Diagnosis(
        python="3.12.0",
        system="Linux x86_64",
        threads=1,
        versions={"torch": "2.13.0", "numba": None},
        cuda="13.0",
        devices={"cpu": "x86_64", "cuda": device},
        forced=None,
        scans={"cuda": [BackendReport("triton", problem, None, used=False)]},
        trouble=[],
    ).text()
    assert max(len(line) for line in page.splitlines()) <= 80
    told = " ".join(page.split())
    assert device.strip() in told and problem.strip() in told


@pytest.mark.parametrize(
    ("milliseconds", "used"),
    [(10.0, "triton"), (9.5, "triton"), (8.0, "mamba_ssm"), (None, "triton")],
    ids=["equal", "within the margin", "faster", "not installed"],
)
def test_tuning_keeps_the_clearly_faster_scan(
    milliseconds: float | None, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda:0")
    times = {"triton": 10.0, "mamba_ssm": milliseconds or 0.0}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(dispatch, "seconds", lambda name, device, **_: times[name] / 1e3)
    monkeypatch.setattr(
        dispatch,
        "why_not",
        lambda name, device: "ImportError: none" if not times[name] else None,
    )
    code, text = doctor("--tune")
    assert code == 0
    assert f"{used} is used" in " ".join(text.split())
    assert tuned.tuned_backend(gpu) == (None if milliseconds is None else used)
    code, text = doctor("--tune", "--json")
    assert json.loads(text)["used"] == {"NVIDIA H200": used}


def test_without_a_gpu_there_is_nothing_to_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["doctor", "--tune"])
    assert "only a GPU has several fast scans" in str(result.exception)
