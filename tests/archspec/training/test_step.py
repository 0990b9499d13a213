"""Steps in float16 as on a GPU without bfloat16: scaled, clipped by the true norm, resumable."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec.spec.training import TrainingSpec
from archspec.training.step import Stepper, _moved, autocast_dtype

RECIPE = TrainingSpec(
    optimizer="sgd", lr=0.1, weight_decay=0, clip=0.1, warmup=0, schedule="constant"
)
CPU = torch.device("cpu")
BATCH = (torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 1, 1]))


def make(dtype: torch.dtype | None) -> tuple[nn.Linear, Stepper]:
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    return net, Stepper(net, RECIPE, device=CPU, dtype=dtype)


class Loss(nn.Module):
    """Cross-entropy, so many times."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.factor * nn.functional.cross_entropy(logits.float(), target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [0.05, 1.0], ids=["below the clip", "clipped"])
def test_a_step_is_that_of_float32(dtype: torch.dtype, factor: float) -> None:
    """Gradients clipped while they are scaled would leave the weights where they were."""
    start, _ = make(None)
    expected, plain = make(None)
    found, stepper = make(dtype)
    assert float(plain.step(Loss(factor), BATCH, 0, 10)) == pytest.approx(
        float(stepper.step(Loss(factor), BATCH, 0, 10)), rel=0.01
    )
    moved = (expected.weight - start.weight).norm()
    assert moved > 1e-3
    assert (found.weight - expected.weight).norm() < 0.02 * moved
    if factor == 1:
        both = torch.cat([(expected.weight - start.weight).flatten(), expected.bias - start.bias])
        assert float(both.detach().norm()) == pytest.approx(0.1 * 0.1 * 1.99, rel=1e-4), (
            "lr x clip, and Nesterov's momentum"
        )


def test_an_overflow_of_the_scaled_gradient_takes_no_step_and_halves_the_scale() -> None:
    net, stepper = make(torch.float16)
    before = net.weight.detach().clone()
    stepper.step(Loss(1e34), BATCH, 0, 10)
    assert torch.equal(net.weight, before)
    assert stepper.state_dict()["scaler"]["scale"] == 2**15
    stepper.step(Loss(), BATCH, 1, 10)
    assert not torch.equal(net.weight, before)


def test_a_resumed_trial_goes_on_with_its_scale() -> None:
    _, stepper = make(torch.float16)
    stepper.step(Loss(1e34), BATCH, 0, 10)
    state = stepper.state_dict()
    _, resumed = make(torch.float16)
    resumed.load_state_dict(state)
    assert resumed.state_dict()["scaler"] == state["scaler"]
    _, other = make(torch.bfloat16)
    other.load_state_dict(state)  # gone on with on a GPU that has bfloat16
    del state["scaler"]  # of a release that knew no scale
    resumed.load_state_dict(state)


@pytest.mark.parametrize(
    ("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)], ids=["A100", "V100"]
)
def test_bfloat16_is_used_where_it_is_not_emulated(
    native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert autocast_dtype(torch.device("cuda:0")) == expected
    assert autocast_dtype(CPU) is None


def test_a_step_waits_for_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads a value fails: tensors on `meta` have none, and a GPU's are not there yet."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # no meta
    device = torch.device("meta")
    recipe = RECIPE.model_copy(update={"clip": 12.0})
    stepper = Stepper(nn.Linear(4, 2).to(device), recipe, device=device, dtype=None)
    loss = stepper.step(Loss(), (BATCH[0].to(device), BATCH[1].to(device)), 0, 10)
    assert loss.shape == () and loss.is_meta and not loss.requires_grad


class FakeTensor:
    """What a tensor does on its way to a GPU."""

    def __init__(self, *, pinned: bool, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.pinned = pinned

    def is_pinned(self) -> bool:
        return self.pinned

    def pin_memory(self) -> "FakeTensor":
        return FakeTensor(pinned=True)

    def to(self, device: torch.device, *, non_blocking: bool) -> tuple[bool, bool]:
        return self.pinned, non_blocking


@pytest.mark.parametrize("pinned", [True, False])
def test_batches_are_copied_to_a_gpu_from_pinned_memory(pinned: bool) -> None:
    gpu, part = torch.device("cuda"), FakeTensor(pinned=pinned)
    assert _moved([part, part], gpu) == [(True, True)] * 2  # type: ignore[list-item]
    there: Any = FakeTensor(pinned=False, device="cuda")
    assert _moved(there, gpu) == (False, True)
    image = BATCH[0]
    assert _moved(image, CPU) is image
