"""`archspec doctor` runs the backends and says which one is used."""

import json

import pytest
from typer.testing import CliRunner

from archspec.cli.main import app
from archspec.doctor import BackendReport, Diagnosis
from blocks.scan import dispatch


def doctor(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *options])
    return result.exit_code, result.stdout


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without the timing, which is of the slow backends as well."""
    monkeypatch.setattr(dispatch, "seconds", lambda name, device: 0.01)


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
