"""What nnU-Net does to a network on a GPU, tried on the CPU, and weights from other classes."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec
from blocks.mixers import MIXERS

pytestmark = pytest.mark.smoke

KINDS = list(MIXERS.kinds())


def loss_of(outputs: Any) -> Tensor:
    """Return a loss over all outputs, in float32 as nnU-Net's."""
    parts = outputs if isinstance(outputs, list) else [outputs]
    total = torch.stack([part.float().logsumexp(1).mean() - part[:, 0].mean() for part in parts])
    return total.sum()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(
    mixer: ComponentSpec,
    dtype: torch.dtype,
    small_spec: Callable[..., ArchSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under autocast with nnU-Net's scaled loss the logits are right and the gradients finite.

    The scaler begins at 2**16 and halves at every overflow, as on a GPU. Without oneDNN, whose
    weight gradient in bfloat16 reads memory that nobody wrote, where the processor has AVX512_BF16.
    """
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    net = build_plan(plan(small_spec(3, mixer=mixer, patch_size=[8, 16, 8], heads=2)))
    net.decoder.deep_supervision = True
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu")
    x = 20 * torch.randn(2, 1, 8, 16, 8)
    full = [out.detach() for out in net(x)]
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            half = net(x)
            loss = loss_of(half)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        finite = all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
        if finite:
            break
        scaler.step(optimizer)
        scaler.update()
    assert finite, f"gradients overflow at a scale of {scaler.get_scale()}"
    assert scaler.get_scale() >= 2**10
    for rough, exact in zip(half, full, strict=True):
        torch.testing.assert_close(rough.float(), exact, atol=0.05 * float(exact.std()), rtol=0.05)


def mixed(axes: int) -> SegNet:
    """Return a network with every mixer, one per stage, and two heads."""
    stages = [
        {"width": 4, "mixer": {"kind": kind}, "downsample": {"stride": 1 + index % 2}}
        for index, kind in enumerate(KINDS)
    ]
    tree = {
        "name": "mixed",
        "patch_size": (16, 8, 8)[:axes],
        "encoder": {"stages": stages},
        "decoder": {"kind": "sum", "head": "conv"},
        "deep_supervision": {"heads": 2},
    }
    return build_plan(plan(load(tree)))


@pytest.mark.parametrize(
    ("axes", "compiler"),
    [
        (3, "aot_eager"),
        pytest.param(2, "aot_eager", marks=pytest.mark.long),
        pytest.param(3, "inductor", marks=pytest.mark.long),
    ],
)
def test_compiled(axes: int, compiler: str) -> None:
    """nnU-Net compiles the network on CUDA, and switches deep supervision for validation."""
    torch._dynamo.reset()
    net = mixed(axes)
    eager, compiled = copy.deepcopy(net), torch.compile(net, fullgraph=True, backend=compiler)
    x = torch.randn(2, 1, *(16, 8, 8)[:axes])
    for flag in (True, False):
        net.decoder.deep_supervision = eager.decoder.deep_supervision = flag
        try:
            out, want = compiled(x), eager(x)
        except torch._inductor.exc.InductorError as error:  # no C++ compiler on this machine
            pytest.skip(f"inductor does not work here: {error}")
        assert isinstance(out, list) is flag
        torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-4)
        found = torch.autograd.grad(loss_of(out), list(net.parameters()), allow_unused=not flag)
        wanted = torch.autograd.grad(loss_of(want), list(eager.parameters()), allow_unused=not flag)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_weights_go_to_another_number_of_classes(
    spec_name: str, shrunk: Callable[..., Plan], tmp_path: Path
) -> None:
    """By nnU-Net's -pretrained_weights: everything but the heads is taken over."""
    module = pytest.importorskip("nnunetv2.run.load_pretrained_weights")
    planned = shrunk(spec_name)
    if planned.spec.network is not None:
        pytest.skip("nnU-Net finds heads by a name that a library's own head does not have")
    nets: list[nn.Module] = []
    for classes in (3, 5):
        resized = plan(planned.spec, patch_size=planned.patch_size, num_classes=classes)
        nets.append(build_plan(resized))
    source, target = nets
    torch.save({"network_weights": source.state_dict()}, tmp_path / "checkpoint.pth")
    heads = {k: v.clone() for k, v in target.state_dict().items() if ".seg_layers." in k}
    module.load_pretrained_weights(target, str(tmp_path / "checkpoint.pth"))
    assert heads
    for key, value in target.state_dict().items():
        assert torch.equal(value, heads.get(key, source.state_dict().get(key))), key


class _Missing:
    """Import no archspec."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "archspec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_without_archspec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed nnU-Net says that the class is missing, and takes no other."""
    module = pytest.importorskip("nnunetv2.utilities.get_network_from_plans")
    for name in [name for name in sys.modules if name.partition(".")[0] == "archspec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])
    with pytest.warns(UserWarning), pytest.raises(ImportError, match="could not be found"):
        module.get_network_from_plans("archspec.nnunet.ArchSpecNet", {}, [], 1, 2)
