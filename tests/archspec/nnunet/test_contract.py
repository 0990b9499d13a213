"""What nnU-Net expects of a network, held for every mixer and every bundled spec.

Numbers in docstrings are those of the acceptance list for exports into nnU-Net.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec import plan
from archspec.network.build import build, build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.nnunet import contract as nnunet_contract
from archspec.nnunet.contract import check_contract, network_arguments, target_sizes
from archspec.nnunet.export import NETWORK_CLASS
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec, SpecError

pytestmark = pytest.mark.smoke

SmallSpec = Callable[..., ArchSpec]

# Strides of three stages, heads, patch and decoder.
CASES: dict[str, tuple[list[Any], int, tuple[int, ...], dict[str, Any]]] = {
    "one_head": ([2, 2, 2], 1, (16, 16, 16), {}),
    "one_head_odd_axis": ([[2, 2, 1], 2, [1, 1, 1]], 1, (16, 16, 6), {}),
    "patchify_stem": ([4, 2, 2], 2, (16, 16, 16), {}),
    "anisotropic": ([[1, 2, 2], 2, [1, 2, 2]], 2, (6, 16, 16), {}),
    "full_resolution": ([1, 2, 2], 2, (16, 16, 16), {"kind": "sum", "head": "conv"}),
    "two_dimensions": ([2, 2, 2], 2, (16, 24), {}),
    "mlp_decoder": ([2, 2, 2], 1, (16, 16, 16), {"kind": "mlp"}),
}


def mixed(case: str) -> Plan:
    """Return a network whose stages mix by convolution, attention and Mamba."""
    strides, heads, patch, decoder = CASES[case]
    mixers = [
        {"kind": "conv"},
        {"kind": "attention", "num_heads": 2},
        {"kind": "mamba", "d_state": 4},
    ]
    stages = [
        {"width": 8, "downsample": {"stride": stride, "kernel_size": 5}, "mixer": mixer}
        for stride, mixer in zip(strides, mixers, strict=True)
    ]
    spec = {
        "name": "mixed",
        "patch_size": patch,
        "encoder": {"stages": stages},
        "decoder": decoder or {"kind": "sum"},
        "deep_supervision": {"heads": heads},
    }
    return plan(load(spec), in_channels=2, num_classes=3)


def from_plans(planned: Plan, *, deep_supervision: bool) -> Any:
    """Return the network as nnU-Net makes it from plans."""
    nnunet = pytest.importorskip("nnunetv2.utilities.get_network_from_plans")
    return nnunet.get_network_from_plans(
        NETWORK_CLASS,
        network_arguments(planned),
        [],
        planned.in_channels,
        planned.num_classes,
        deep_supervision=deep_supervision,
    )


def random_input(planned: Plan, batch: int = 1) -> Tensor:
    return torch.randn(batch, planned.in_channels, *planned.patch_size)


@pytest.mark.parametrize("case", CASES)
def test_outputs_follow_strides(case: str) -> None:
    """3: as many outputs as targets, of their sizes, fine to coarse; a tensor while it is off."""
    planned = mixed(case)
    check_contract(planned, network_arguments(planned), batch_size=2)
    net = from_plans(planned, deep_supervision=True)
    x = random_input(planned)
    outputs = net(x)
    assert [tuple(out.shape[2:]) for out in outputs] == target_sizes(planned)
    assert len(outputs) == len(planned.strides) - 1 >= 2
    assert target_sizes(planned)[0] == planned.patch_size
    sizes = [out[0, 0].numel() for out in outputs]
    assert sizes == sorted(sizes, reverse=True)
    net.decoder.deep_supervision = False
    assert net(x).shape == outputs[0].shape


@pytest.mark.parametrize("case", CASES)
def test_network_is_the_one_that_build_makes(case: str) -> None:
    planned = mixed(case)
    expected = build_plan(planned).eval()
    x = random_input(planned)
    for flag in (False, True):
        net = ArchSpecNet(2, 3, deep_supervision=flag, **network_arguments(planned)).eval()
        assert net.decoder.deep_supervision is flag
        assert list(net.state_dict()) == list(expected.state_dict())
        net.load_state_dict(expected.state_dict())
        out = net(x)
        torch.testing.assert_close(out[0] if flag else out, expected(x), rtol=0, atol=0)


def nnunet_loss(outputs: Sequence[Tensor]) -> Tensor:
    """Return nnU-Net's sum over outputs: weights 1, 1/2, 1/4 ..., the last one zero, normalised.

    Source: nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py (2.8.1), `_build_loss`.
    """
    weights = torch.tensor([0.5**i for i in range(len(outputs))])
    weights[-1] = 0
    weights /= weights.sum()
    losses = []
    for out in outputs:
        target = torch.randint(out.shape[1], (out.shape[0], *out.shape[2:]))
        losses.append(nn.functional.cross_entropy(out, target))
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True) if w]).sum()


def test_trained_weights_predict_the_same(
    small_spec: SmallSpec, mixer: ComponentSpec, ndim: int
) -> None:
    """2, 4 and 16, for every mixer with one head, which must never give NaN.

    After a step on nnU-Net's loss, a network that nnU-Net rebuilds for prediction and loads
    strictly gives the same logits; every parameter got a finite gradient.
    """
    planned = plan(small_spec(ndim, mixer=mixer, heads=1))
    net = from_plans(planned, deep_supervision=True)
    x = random_input(planned, batch=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    loss = nnunet_loss(net(x))
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    rebuilt = from_plans(planned, deep_supervision=False)
    rebuilt.load_state_dict(net.state_dict(), strict=True)
    net.decoder.deep_supervision = False
    with torch.no_grad():
        torch.testing.assert_close(rebuilt.eval()(x), net.eval()(x))


def test_last_head_alone_gets_no_gradient(small_spec: SmallSpec) -> None:
    """16: nnU-Net gives the coarsest output no weight, and DDP a tiny one for this reason."""
    planned = plan(small_spec(3, heads=2))
    net = from_plans(planned, deep_supervision=True)
    nnunet_loss(net(random_input(planned, batch=2))).backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"decoder.seg_layers.1.weight", "decoder.seg_layers.1.bias"}


def test_bundled_specs_keep_the_contract(shrunk: Callable[..., Plan], spec_name: str) -> None:
    """2, 3 and 16 for every bundled network, thinned: all rules that are checked at export."""
    planned = shrunk(spec_name)
    arguments = network_arguments(planned)
    check_contract(planned, arguments, batch_size=2)
    assert len(arguments["strides"]) >= 3
    assert json.loads(json.dumps(arguments)) == arguments


class _Broken(ArchSpecNet):
    """A network that keeps the contract, until a test breaks one rule of it."""

    fault = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.fault == "weights" and options["deep_supervision"]:
            self.extra = nn.Linear(1, 1)
        if self.fault == "unused":
            self.extra = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        out = super().forward(x)
        if self.fault == "short" and isinstance(out, list):
            return out[:1]
        if self.fault == "tensor" and isinstance(out, list):
            return out[0]
        if self.fault == "list" and isinstance(out, Tensor):
            return [out]
        if self.fault == "crash":
            raise RuntimeError("sizes of tensors must match\nsecond line")
        return out


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("weights", "depend on deep supervision"),
        ("unused", "extra.weight of mixed takes part in no output"),
        ("short", "strides: mixed gives outputs of shapes"),
        ("tensor", "strides: mixed gives outputs of shapes"),
        ("list", "does not predict one tensor"),
        ("crash", "does not run at patch_size"),
    ],
)
def test_a_broken_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    """Each rule is really checked: nnU-Net would fail late on it, or not at all."""
    planned = mixed("one_head")
    monkeypatch.setattr(_Broken, "fault", fault)
    monkeypatch.setattr(nnunet_contract, "ArchSpecNet", _Broken)
    with pytest.raises(SpecError, match=said) as caught:
        check_contract(planned, network_arguments(planned), batch_size=2)
    assert "\n" not in str(caught.value)


def test_wrong_strides_refused() -> None:
    kwargs = network_arguments(mixed("one_head")) | {"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    with pytest.raises(SpecError, match=r"^strides: the outputs of mixed"):
        ArchSpecNet(1, 2, deep_supervision=True, **kwargs)


def test_newer_schema_refused() -> None:
    with pytest.raises(SpecError, match="schema_version: 99 is newer"):
        ArchSpecNet(1, 2, **network_arguments(mixed("one_head")) | {"schema_version": 99})


def test_plans_of_the_first_release_load() -> None:
    """Plans written before `arch_hash` stood in them hold claims, and load for ever."""
    path = Path(__file__).with_name("plans_before_arch_hash.json")
    configuration = json.loads(path.read_text(encoding="utf-8"))["configurations"]["3d_fullres"]
    net = ArchSpecNet(1, 3, deep_supervision=True, **configuration["architecture"]["arch_kwargs"])
    outputs = net(torch.randn(1, 1, *configuration["patch_size"]))
    assert [tuple(out.shape) for out in outputs] == [(1, 3, 16, 16, 16), (1, 3, 16, 16, 8)]
    assert net.arch_hash is None
    assert (
        network_arguments(mixed("one_head"))["arch_hash"]
        == ArchSpecNet(2, 3, **network_arguments(mixed("one_head"))).arch_hash
    )


def test_class_name_is_nobody_elses() -> None:
    """17: without archspec nnU-Net looks for the last name among the networks that it knows."""
    dna = pytest.importorskip("dynamic_network_architectures")
    finding = pytest.importorskip("nnunetv2.utilities.find_class_by_name")
    nnunet = pytest.importorskip("nnunetv2.utilities.get_network_from_plans")
    architectures = Path(dna.__path__[0]) / "architectures"
    name = NETWORK_CLASS.rpartition(".")[2]
    where = "dynamic_network_architectures.architectures"
    assert finding.recursive_find_python_class(str(architectures), "PlainConvUNet", where)
    assert finding.recursive_find_python_class(str(architectures), name, where) is None
    arguments = network_arguments(mixed("one_head"))
    with pytest.raises(ImportError, match="Network class could not be found"):
        nnunet.get_network_from_plans(f"not_installed.{NETWORK_CLASS}", arguments, [], 1, 2)


def test_name_stays() -> None:
    """17: this name stands in users' plans and checkpoints, so it never moves."""
    import pydoc

    assert pydoc.locate("archspec.nnunet.ArchSpecNet") is ArchSpecNet
    assert NETWORK_CLASS == "archspec.nnunet.ArchSpecNet"
    assert not hasattr(ArchSpecNet, "initialize")  # nnU-Net would call it on every submodule
    assert isinstance(build("mamba-unet"), SegNet)
