"""Backends are chosen by running them, never by timing them, and can be forced."""

import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blocks.base import SpecError
from blocks.scan import dispatch, tuned
from blocks.scan.backends import kscan, reference

CPU = torch.device("cpu")
GPUS = (torch.device("cuda:0"), torch.device("cuda:1"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    caches = (dispatch._why_not, dispatch._first_that_works)
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


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, torch.device]]:
    """Pretend that there are two GPUs, on which every backend works; returns what is probed."""
    probed: list[tuple[str, torch.device]] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Model {device.index}")
    monkeypatch.setattr(dispatch, "_load", lambda name: name)
    monkeypatch.setattr(
        dispatch, "_probe", lambda name, device: probed.append((name, device)), raising=True
    )
    return probed


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("timed")


def test_no_timing_chooses(
    two_gpus: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise would change the backend, and so the bits, between processes or ranks."""
    monkeypatch.setattr(dispatch, "seconds", refuse)
    monkeypatch.setitem(sys.modules, "mamba_ssm", types.ModuleType("mamba_ssm"))
    sys.modules["mamba_ssm"].__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    assert [dispatch.chosen(gpu) for gpu in GPUS] == ["triton", "triton"]


def test_every_gpu_is_probed_once(two_gpus: list[tuple[str, torch.device]]) -> None:
    for _ in range(2):
        for device in ("cuda:0", "cuda:1", "cuda"):
            assert dispatch.chosen(torch.device(device)) == "triton"
            assert dispatch.why_not("triton", device) is None
    assert two_gpus == [("triton", gpu) for gpu in GPUS]


def keep(content: object) -> None:
    file = tuned.tuned_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_a_choice_that_was_tuned_holds_for_its_model(
    two_gpus: list[tuple[str, torch.device]],
) -> None:
    keep({tuned.choice_key(GPUS[1]): "mamba_ssm"})
    assert [dispatch.chosen(gpu) for gpu in GPUS] == ["triton", "mamba_ssm"]
    assert torch.__version__ in tuned.choice_key(GPUS[1])


def test_a_tuned_backend_that_is_gone_gives_way(
    two_gpus: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(name: str, device: torch.device) -> None:
        if name == "mamba_ssm":
            raise ImportError("no module named mamba_ssm")

    monkeypatch.setattr(dispatch, "_probe", probe)
    keep({tuned.choice_key(GPUS[0]): "mamba_ssm"})
    with pytest.warns(UserWarning, match="mamba_ssm scan does not work on cuda:0"):
        assert dispatch.chosen(GPUS[0]) == "triton"


@pytest.mark.parametrize("content", [None, "{", "[]", {"": "mamba_ssm"}, {"KEY": "cuda"}], ids=str)
def test_choices_that_cannot_be_read_mean_triton(
    content: object, two_gpus: list[tuple[str, torch.device]]
) -> None:
    if isinstance(content, dict):
        keep({tuned.choice_key(GPUS[0]) if k == "KEY" else k: v for k, v in content.items()})
    elif content is not None:
        keep(content)
    assert dispatch.chosen(GPUS[0]) == "triton"


def test_a_first_call_inside_a_capture_is_refused_and_not_remembered(
    two_gpus: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for ask in (lambda: dispatch.chosen(GPUS[0]), lambda: dispatch.why_not("triton", GPUS[0])):
        with pytest.raises(RuntimeError, match="while a CUDA graph is captured: run the network"):
            ask()
    assert not two_gpus
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert dispatch.chosen(GPUS[0]) == "triton"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert dispatch.chosen(GPUS[0]) == "triton"


@pytest.mark.parametrize("fault", ["bfloat16", "second segment", "states"])
def test_the_probe_of_a_gpu_sees_what_only_training_uses(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def scan(*arguments: object) -> object:
        out, boundaries = reference.selective_scan(*arguments)
        u, A = arguments[0], arguments[2]
        assert isinstance(u, Tensor) and isinstance(A, Tensor)
        seen.append(u)
        if fault == "second segment" and out.shape[1] > 64:
            out[:, 64:] *= 1.2
        if (fault == "bfloat16" and u.dtype == torch.bfloat16) or (
            fault == "states" and A.shape[-1] == 16
        ):
            out *= 1.2
        return out, boundaries

    monkeypatch.setattr(dispatch, "_has_bfloat16", lambda device: True)
    monkeypatch.setattr(
        dispatch, "_inputs", lambda device, *sizes, make=dispatch._inputs: make(CPU, *sizes)
    )
    dispatch._probe(reference, GPUS[0])
    with pytest.raises(RuntimeError, match="its results differ"):
        dispatch._probe(_broken(reference, selective_scan=scan), GPUS[0])
    assert -(-seen[0].shape[2] // 64) == 3


def test_seconds_are_of_a_real_run() -> None:
    assert 0 < dispatch.seconds("kscan", "cpu", length=64, channels=4) < 10


def test_importing_runs_and_loads_nothing() -> None:
    code = (
        "import sys, archspec, blocks.scan.op, blocks.scan.causal_conv\n"
        "net = archspec.build('segmamba', patch_size=(32, 32, 32))\n"
        "lazy = {'numba', 'mamba_ssm', 'causal_conv1d', 'blocks.scan.backends.triton_backend'}\n"
        "assert not lazy & set(sys.modules)\n"
        "from blocks.scan import dispatch\n"
        "assert dispatch._why_not.cache_info().currsize == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
