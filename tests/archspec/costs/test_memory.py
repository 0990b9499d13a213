"""Bytes on the meta device against what a real forward pass keeps alive."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import archspec
from archspec.costs.flops import FusedAttention, on_meta
from archspec.costs.memory import saved_by_path, saved_bytes, training_memory
from archspec.network.build import build_plan
from archspec.network.plan import Plan, plan
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec

pytestmark = pytest.mark.smoke

SpecFactory = Callable[..., ArchSpec]


class Alive(TorchDispatchMode):
    """Know every storage that operators return and that still lives."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata, None)
        return out


def retained_bytes(net: nn.Module, x: Tensor) -> int:
    """Return what lives after a forward pass because of it, x included, the logits not."""
    with Alive() as alive:
        logits = net(x)
    storages = {tensor.untyped_storage()._cdata for tensor in (logits, x, *net.parameters())}
    return x.untyped_storage().nbytes() + sum(
        size for key, size in alive.sizes.items() if key not in storages
    )


def check(planned: Plan) -> None:
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    found = retained_bytes(build_plan(planned), x)
    assert saved_bytes(planned) == pytest.approx(found, rel=0.01)


def test_component(component: dict[str, ComponentSpec], ndim: int, small_spec: SpecFactory) -> None:
    check(plan(small_spec(ndim, **component)))


def test_bundled_spec(some_spec: str, shrunk: Callable[..., Plan]) -> None:
    check(shrunk(some_spec))


def test_shares_of_modules(shrunk: Callable[..., Plan]) -> None:
    planned = shrunk("segmamba")
    shares = saved_by_path(planned)
    tops = [name for name, _ in build_plan(planned).named_children()]
    assert tops == ["stages", "decoder"]
    stages = [shares[f"stages.{index}"] for index in range(len(planned.stages))]
    assert shares["Global"] == sum(stages) + shares["decoder"]
    assert all(stage > 0 for stage in stages)


@pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch knows no CUDA tensors")
def test_amp_is_that_of_cuda(spec_name: str, shrunk: Callable[..., Plan]) -> None:
    """CUDA's own autocast on tensors without memory keeps the same bytes as our casts on meta."""
    planned = shrunk(spec_name)
    net, _ = on_meta(planned)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        net = net.to_empty(device="cuda")
        x = torch.empty(1, planned.in_channels, *planned.patch_size, device="cuda")
        # torch.autocast refuses where there is no GPU; the switch behind it does not.
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.float16)
        try:
            with FusedAttention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                out = net(x)
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
        own = {p.untyped_storage()._cdata for p in net.parameters()}
        sizes = [t.untyped_storage().nbytes() for key, t in kept.items() if key not in own]
    del out
    assert saved_bytes(planned, amp=True) == pytest.approx(sum(sizes), rel=0.01)


def test_training_step_by_hand() -> None:
    """One convolution and one head: every tensor of the step can be listed."""
    spec = {
        "name": "by-hand",
        "in_channels": 1,
        "num_classes": 2,
        "patch_size": [8, 8],
        "encoder": {"stages": [{"width": 4, "mixer": {"kind": "identity"}}]},
        "decoder": {"kind": "sum"},
    }
    planned = archspec.plan(spec)
    found = training_memory(planned, batch=3, optimizer="adamw")
    net = build_plan(planned)
    assert found.parameters == 4 * sum(p.numel() for p in net.parameters())
    assert found.gradients == found.parameters
    assert found.optimizer == 2 * found.parameters
    assert found.saved == saved_bytes(planned, batch=3)
    logits = 3 * 2 * 8 * 8 * 4
    assert found.transient >= logits
    assert found.total == found.parameters + found.optimizer + found.saved + found.transient


def test_memory_grows_with_the_batch_and_shrinks_under_amp() -> None:
    planned = archspec.plan("segformer3d", patch_size=(64, 64, 64))
    one, two, half = (
        training_memory(planned, batch=batch, amp=amp)
        for batch, amp in ((1, False), (2, False), (2, True))
    )
    assert two.saved == pytest.approx(2 * one.saved, rel=0.01)
    assert half.saved < 0.9 * two.saved
    assert half.total < two.total


def test_transient_of_a_real_step() -> None:
    """The worst moment of a real step on the CPU, by the same bookkeeping, is the estimate's."""
    planned = archspec.plan("small-unet", patch_size=(32, 32, 32))
    net, x = build_plan(planned), torch.randn(2, 1, 32, 32, 32)

    class Peak(Alive):
        peak = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = super().__torch_dispatch__(func, types, args, kwargs)
            self.peak = max(self.peak, sum(self.sizes.values()))
            return out

    with Peak() as live:
        net(x).logsumexp(1).mean().backward()
    found = training_memory(planned, batch=2)
    assert found.saved + found.transient == pytest.approx(live.peak + x.nbytes, rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", [False, True], ids=["float32", "amp"])
@pytest.mark.parametrize("name", archspec.list_specs())
def test_peak_on_cuda(name: str, amp: bool) -> None:
    from archspec.costs.measure import profile_plan

    planned = archspec.plan(name, in_channels=4, patch_size=(96, 96, 96))
    found = profile_plan(planned, device="cuda", batch=1, amp=amp, repeats=1)
    assert found.estimated.memory_bytes == pytest.approx(found.measured.peak_bytes, rel=0.15)
