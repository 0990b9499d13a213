"""The adapter to mamba-ssm: layouts on the CPU with stand-ins, the real package on a GPU.

The stand-ins have the signatures of upstream's public functions (mamba-ssm 2.3.2,
causal-conv1d 1.7) and compute in plain PyTorch, so they show that the adapter folds directions,
orders and groups as it must; that upstream computes what we expect, only the gpu test shows.
"""

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.backends import mamba_ssm_backend, reference

ORDERS = (1, -1, 4)


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor:
    """Scan u, delta (B, D, L), A (D, N), B and C (B, G, N, L), where D/G channels share a group."""
    assert u.is_contiguous()
    assert B.stride(-1) == 1
    assert C.stride(-1) == 1
    assert delta_softplus
    assert z is None
    assert not return_last_state
    assert D is not None
    assert delta_bias is not None
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1).float() for t in (B, C))
    dt = F.softplus(delta.float() + delta_bias[:, None])
    h, outputs = torch.zeros(*u.shape[:2], A.shape[1]), []
    for step in range(u.shape[2]):
        decay = torch.exp(dt[..., step, None] * A)
        h = decay * h + (dt * u.float())[..., step, None] * B[..., step]
        outputs.append((h * C[..., step]).sum(-1) + D * u[..., step])
    return torch.stack(outputs, dim=-1).to(u.dtype)


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Convolve x (B, D, L) with weight (D, W)."""
    assert activation == "silu"
    assert 2 <= weight.shape[1] <= 4
    padded = F.pad(x, (weight.shape[1] - 1, 0))
    return F.silu(F.conv1d(padded, weight.unsqueeze(1), bias, groups=len(weight)))


@pytest.fixture
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = "mamba_ssm.ops.selective_scan_interface"
    for name in ("mamba_ssm", "mamba_ssm.ops", interface, "causal_conv1d"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules[interface], "selective_scan_fn", selective_scan_fn, False)
    monkeypatch.setattr(sys.modules["causal_conv1d"], "causal_conv1d_fn", causal_conv1d_fn, False)


def compare(device: str, dtype: torch.dtype, gate: bool, tolerance: float, taps: int = 4) -> None:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    low = [random(2, 3, 12, size).to(dtype) for size in (5, 5, 4, 4)]
    A, D, bias = -torch.rand(3, 5, 4, device=device) - 0.2, random(3, 5), random(3, 5)
    z = random(2, 12, 5).to(dtype) if gate else None
    scan = (*low[:2], A, *low[2:], D, bias, z)
    x, weight, conv_bias = random(2, 12, 5).to(dtype), random(3, 5, taps), random(3, 5)
    grad, conv_grad = random(2, 12, 5).to(dtype), random(2, 3, 12, 5).to(dtype)

    def run(backend: types.ModuleType, wide: bool) -> tuple[Tensor, ...]:
        def cast(*tensors: Tensor | None) -> list[Tensor]:
            return [t.float() if wide and t is not None else t for t in tensors]  # type: ignore[misc]

        inputs = cast(*scan)
        out, boundaries = backend.selective_scan(*inputs, ORDERS)
        grads = backend.selective_scan_backward(*cast(grad), *inputs, boundaries, ORDERS)
        conv = cast(x, weight, conv_bias)
        convolved = backend.causal_conv1d(*conv, ORDERS)
        conv_grads = backend.causal_conv1d_backward(*cast(conv_grad), *conv, ORDERS)
        return (out, *grads, convolved, *conv_grads)

    for found, want in zip(run(mamba_ssm_backend, False), run(reference, True), strict=True):
        assert found.shape == want.shape
        if want.numel():
            atol = tolerance * max(1.0, want.abs().max().item())
            torch.testing.assert_close(found.float(), want, rtol=tolerance, atol=atol)


@pytest.mark.usefixtures("_stand_ins")
@pytest.mark.parametrize("gate", [True, False], ids=["z", "no-z"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_layouts(dtype: torch.dtype, tolerance: float, gate: bool) -> None:
    compare("cpu", dtype, gate, tolerance)


@pytest.mark.usefixtures("_stand_ins")
@pytest.mark.parametrize("taps", [1, 2, 5])
def test_any_number_of_taps(taps: int) -> None:
    compare("cpu", torch.float32, True, 1e-5, taps)


def test_float64_is_refused() -> None:
    x = torch.ones(1, 4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"not torch.float64"):
        mamba_ssm_backend.causal_conv1d(x, torch.ones(1, 3, 4), torch.ones(1, 3), (1,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
def test_real_package(dtype: torch.dtype, tolerance: float) -> None:
    pytest.importorskip("mamba_ssm")
    pytest.importorskip("causal_conv1d")
    compare("cuda", dtype, True, tolerance)
