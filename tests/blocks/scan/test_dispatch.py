"""Backends are chosen by running them, and can be forced."""

import subprocess
import sys
import types
from collections.abc import Iterator

import pytest
import torch

from blocks.base import SpecError
from blocks.scan import dispatch
from blocks.scan.backends import kscan, reference

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    caches = (dispatch.why_not, dispatch._first_that_works)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize(("name", "module"), [("reference", reference), ("kscan", kscan)])
def test_variable_forces_a_backend(
    monkeypatch: pytest.MonkeyPatch, name: str, module: types.ModuleType
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, name)
    assert dispatch.backend_for(CPU, torch.float32) is module


def test_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "cuda")
    with pytest.raises(SpecError, match=r"ARCHSPEC_SCAN=cuda: not a scan backend; allowed: ref"):
        dispatch.chosen(CPU)


def test_forced_backend_must_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "mamba_ssm")
    with pytest.raises(SpecError, match="ARCHSPEC_SCAN=mamba_ssm: does not work on cpu: "):
        dispatch.chosen(CPU)


def _broken(module: types.ModuleType, **changes: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{**vars(module), **changes})


def test_backend_that_raises_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no compiler here\nand more")

    load, first = dispatch._load, dispatch._CANDIDATES["cpu"][0]
    broken = _broken(reference, causal_conv1d=refuse)
    monkeypatch.setattr(dispatch, "_load", lambda n: broken if n == first else load(n))
    monkeypatch.setattr(dispatch, "_CANDIDATES", {"cpu": (first, "reference")})
    with pytest.warns(UserWarning, match=f"the {first} scan does not work on cpu .*no compiler"):
        assert dispatch.chosen(CPU) == "reference"
    assert dispatch.why_not(first, "cpu") == "OSError: no compiler here"


def test_backend_that_errs_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> object:
        out, boundaries = reference.selective_scan(*arguments)
        return out * 1.1, boundaries

    load, first = dispatch._load, dispatch._CANDIDATES["cpu"][0]
    broken = _broken(reference, selective_scan=wrong)
    monkeypatch.setattr(dispatch, "_load", lambda n: broken if n == first else load(n))
    monkeypatch.setattr(dispatch, "_CANDIDATES", {"cpu": (first, "reference")})
    with pytest.warns(UserWarning, match="its results differ from the reference's"):
        assert dispatch.chosen(CPU) == "reference"


def test_probing_moves_no_seed() -> None:
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    dispatch.chosen(CPU)
    assert torch.equal(torch.rand(1), want)


def test_faster_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"kscan": 2.0, "reference": 1.0}
    monkeypatch.setattr(dispatch, "seconds", lambda name, _: times[name])
    assert dispatch._faster("kscan", "reference", "cpu") == "reference"
    assert dispatch._faster("reference", "kscan", "cpu") == "reference"
    assert dispatch._faster("kscan", "mamba_ssm", "cpu") == "kscan"


def test_seconds_are_of_a_real_run() -> None:
    assert 0 < dispatch.seconds("kscan", "cpu", length=64, channels=4) < 10


def test_importing_runs_and_loads_nothing() -> None:
    code = (
        "import sys, archspec, blocks.scan.op, blocks.scan.causal_conv\n"
        "net = archspec.build('segmamba', patch_size=(32, 32, 32))\n"
        "lazy = {'numba', 'mamba_ssm', 'causal_conv1d', 'blocks.scan.backends.triton_backend'}\n"
        "assert not lazy & set(sys.modules)\n"
        "from blocks.scan import dispatch\n"
        "assert dispatch.why_not.cache_info().currsize == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
