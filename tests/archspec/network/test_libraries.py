"""Network classes of MONAI and dynamic_network_architectures, named in a spec."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import archspec
from archspec.costs.flops import cost_plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.nnunet.contract import check_contract, network_arguments
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.find import list_specs
from archspec.spec.hashing import arch_hash
from blocks.base import SpecError, StageShape
from blocks.decoders import library
from blocks.decoders.libraries import LIBRARIES, make, network_class, probed_divisor

Refused = tuple[dict[str, Any], str]

RIVALS = [name for name in list_specs() if archspec.load(name).network is not None]
BASE = {"name": "rival", "in_channels": 2, "num_classes": 3, "patch_size": [8, 8, 16]}
SMALL = {"from": "monai", "name": "SegResNet", "args": {"init_filters": 8}, "divisor": 8}


def spec(**fields: Any) -> dict[str, Any]:
    return {**BASE, "network": {**SMALL, **fields}}


def rivals(*quick: str) -> list[Any]:
    """Return every bundled rival; all but the quick ones, whose CPU time is large, are long."""
    marks = pytest.mark.long
    return [name if name in quick else pytest.param(name, marks=marks) for name in RIVALS]


def test_the_bundled_rivals() -> None:
    assert RIVALS == ["mednext-s", "primus-s", "segresnet", "swin-unetr", "unetr"]


@pytest.mark.parametrize("name", rivals("mednext-s", "unetr"))
def test_counts_are_those_of_the_library_s_class(name: str) -> None:
    """The class itself, called by hand, has the parameters that the spec claims."""
    network = archspec.load(name).network
    assert network is not None
    cls = network_class(network.library, network.name)
    by_hand: dict[str, Any] = {"in_channels": 4, "out_channels": 4}
    if name == "primus-s":
        by_hand = {"input_channels": 4, "num_classes": 4, "input_shape": (128, 128, 128)}
    if name == "unetr":
        by_hand |= {"img_size": (128, 128, 128)}
    with torch.device("meta"):
        params = sum(p.numel() for p in make(cls, {**network.args, **by_hand}).parameters())
    claimed = [claim.value for claim in archspec.load(name).claims if claim.unit is None]
    assert claimed == [params]


@pytest.mark.parametrize("name", rivals())
def test_divisors_are_those_that_probing_finds(name: str) -> None:
    network = archspec.load(name).network
    assert network is not None and isinstance(network.divisor, int)
    cls = network_class(network.library, network.name)
    assert probed_divisor(cls, network.args, 3) == (network.divisor,) * 3


def test_divisors_may_differ_by_axis() -> None:
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    args = {"kernel_size": [3, 3, 3], "strides": strides, "filters": [4, 4, 4]}
    tree = {
        "from": "monai",
        "name": "DynUNet",
        "args": {**args, "upsample_kernel_size": strides[1:]},
    }
    planned = archspec.plan({**BASE, "network": tree}, patch_size=(7, 9, 10))
    assert planned.total_stride == (2, 4, 4) and planned.padded_size == (8, 12, 12)


def test_logits_equal_the_library_s(ndim: int) -> None:
    patch = (13, 9, 16)[-ndim:]
    net = archspec.build(spec(), patch_size=patch).eval()
    cls = network_class("monai", "SegResNet")
    own = cls(spatial_dims=ndim, in_channels=2, out_channels=3, init_filters=8).eval()
    prefix = "decoder.network."
    assert all(key.startswith(prefix) for key in net.state_dict())
    own.load_state_dict({key.removeprefix(prefix): v for key, v in net.state_dict().items()})
    x = torch.randn(2, 2, *patch)
    padded = torch.zeros(2, 2, *(-(-n // 8) * 8 for n in patch))
    window = (..., *(slice(n) for n in patch))
    padded[window] = x
    with torch.no_grad():
        assert torch.equal(net(x), own(padded)[window])
        net.decoder.deep_supervision = True
        outputs = net(x)
    assert [tuple(out.shape[2:]) for out in outputs] == [patch, (*patch[:-1], 8)]


def test_start_values_are_the_library_s() -> None:
    torch.manual_seed(3)
    net = archspec.build(spec())
    torch.manual_seed(3)
    own = network_class("monai", "SegResNet")(in_channels=2, out_channels=3, init_filters=8)
    ours = [value for _, value in net.named_parameters()]
    assert all(map(torch.equal, ours, own.parameters()))


@pytest.mark.parametrize("name", rivals("segresnet", "primus-s"))
def test_costs_are_those_of_a_real_run(name: str, shrunk: Callable[..., Plan]) -> None:
    planned = shrunk(name)
    net = build_plan(planned)
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    counted = cost_plan(planned)
    assert counted.flops == counter.get_total_flops() > 0
    assert counted.params == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", rivals("segresnet"))
def test_nnunet_rebuilds_it_from_plans(name: str, shrunk: Callable[..., Plan]) -> None:
    planned = shrunk(name)
    given = network_arguments(planned)
    assert json.loads(json.dumps(given)) == given
    assert given["packages"].keys() == {LIBRARIES[planned.spec.network.library].distribution}  # type: ignore[union-attr]
    assert given["arch_hash"] == arch_hash(planned.spec)
    unused = check_contract(planned, given, batch_size=2)
    assert bool(unused) == (name == "unetr"), unused
    assert all("norm_cross_attn" in key for key in unused)
    net = build_plan(planned).eval()
    again = ArchSpecNet(planned.in_channels, planned.num_classes, **given).eval()
    again.load_state_dict(net.state_dict())
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


@pytest.mark.parametrize("name", rivals("segresnet"))
def test_two_steps_of_training(
    name: str,
    preprocessed: Path,
    shrunk: Callable[..., Plan],
    train_step: Callable[[nn.Module, Tensor], float],
) -> None:
    """Of what stock nnU-Net builds from the plans that an export wrote."""
    nnunet = pytest.importorskip("nnunetv2.utilities.get_network_from_plans")
    planned = shrunk(name)
    export = archspec.export_nnunet(planned.spec, 901, patch_size=planned.patch_size)
    written = json.loads(export.path.read_text())["configurations"]["3d_fullres"]
    assert written["patch_size"] == list(planned.patch_size)
    built = written["architecture"]
    net = nnunet.get_network_from_plans(
        built["network_class_name"], built["arch_kwargs"], built["_kw_requires_import"], 1, 3
    )
    x = torch.randn(2, 1, *planned.patch_size)
    before = {key: value.clone() for key, value in net.named_parameters()}
    losses = [train_step(net, x) for _ in range(2)]
    assert all(torch.isfinite(torch.tensor(losses)))
    moved = [key for key, value in net.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.7 * len(before)


def test_a_network_for_one_size_refuses_others(shrunk: Callable[..., Plan]) -> None:
    net = build_plan(shrunk("primus-s"))
    with pytest.raises(ValueError, match=r"built for \(8, 8, 16\) and runs at no other size"):
        net(torch.randn(1, 4, 8, 8, 8))


UNET = {"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": 3, "strides": [1, 2]}
UNET |= {"n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}


def test_torch_classes_are_named_as_in_plans() -> None:
    args = {**UNET, "conv_op": "torch.nn.modules.conv.Conv3d", "nonlin": "torch.nn.SiLU"}
    args |= {"norm_op": "torch.nn.InstanceNorm3d", "norm_op_kwargs": {"affine": True}}
    net = archspec.build(spec(**{"from": "dna", "name": "PlainConvUNet", "args": args}))
    kinds = {type(module) for module in net.modules()}
    assert {nn.Conv3d, nn.SiLU, nn.InstanceNorm3d} <= kinds and nn.LeakyReLU not in kinds


REFUSED: dict[str, Refused] = {
    "name": (
        spec(name="SegResNut"),
        (
            "network.name: monai has no network 'SegResNut'; allowed: a class of "
            "monai.networks.nets; did you mean 'SegResNet'?"
        ),
    ),
    "no network": (spec(name="torch"), "network.name: monai has no network 'torch'"),
    "a layer that a module imports": (
        {**BASE, "network": {"from": "dna", "name": "PatchEmbed"}},
        "network.name: dna has no network 'PatchEmbed'",
    ),
    "a path": (spec(name="os.system"), "network.name: string must match pattern"),
    "library": (
        spec(**{"from": "timm"}),
        "network.from: 'timm' is not allowed; allowed: monai, dna",
    ),
    "unknown argument": (
        spec(args={"init_filter": 8}),
        ("network.args.init_filter: SegResNet has no such argument; allowed: init_filters, "),
    ),
    "a size": (
        spec(args={"in_channels": 1}),
        "network.args.in_channels: archspec gives this argument itself",
    ),
    "a download": (
        spec(name="FlexibleUNet", args={"pretrained": True, "backbone": "resnet18"}),
        "network.args.pretrained: archspec gives this argument itself",
    ),
    "missing": (spec(name="UNet", args={}), "network.args: UNet also needs channels, strides"),
    "a value": (
        spec(args={"init_filters": 8, "upsample_mode": "up"}),
        "network.args: SegResNet refuses these arguments: ValueError: ",
    ),
    "no segmentation": (
        spec(name="DenseNet121", args={}, divisor=None),
        ("network.name: DenseNet121 gives [1, 2] at [1, 1, 96, 96, 96], not logits"),
    ),
    "no torch class": (
        spec(
            **{
                "from": "dna",
                "name": "PlainConvUNet",
                "args": {**UNET, "conv_op": "torch.nn.Conf3d"},
            }
        ),
        "network.args.conv_op: torch.nn has no layer 'Conf3d'",
    ),
    "too deep": (
        spec(args={"blocks_down": [16_000, 1]}),
        "network.args: SegResNet is made of too many modules; allowed: at most 3,000",
    ),
    "no plain data": (
        spec(args={"init_filters": 10**9}),
        "network.args: an integer must be at most 16384",
    ),
    "both forms": (
        {
            **spec(),
            "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}]},
            "decoder": {"kind": "sum"},
        },
        "network: stands instead of encoder and decoder",
    ),
    "two heads": (
        {**spec(), "deep_supervision": {"heads": 2}},
        ("deep_supervision.heads: 2 heads, but a network of a library has one; use 1"),
    ),
    "neither form": (BASE, "encoder: missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(case: str) -> None:
    tree, want = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        archspec.plan(tree)
    first = str(caught.value).splitlines()[0]
    assert first.removeprefix("spec: ").startswith(want)
    assert case == "neither form" or "\n" not in str(caught.value)


def test_too_many_modules_are_not_made_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not run is tried at a larger size, lest the patch be the one to change."""
    sizes = []
    traced = library._traced

    def count(network: library.NetworkSpec, inp: StageShape, num_classes: int) -> int:
        sizes.append(inp.grid)
        return traced(network, inp, num_classes)

    monkeypatch.setattr(library, "_traced", count)
    for args in ({"blocks_down": [16_000, 1]}, {"blocks_up": [1, 1, 1, 1, 1]}):
        with pytest.raises(SpecError):
            archspec.plan(spec(args=args))
    assert len(sizes) == 1 + 2


WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("monai", "dynamic_network_architectures"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Refuse())
import archspec
assert archspec.load("swin-unetr").network.args == {"feature_size": 48}
for name in ("swin-unetr", "primus-s"):
    try:
        archspec.plan(name)
    except archspec.SpecError as error:
        print(error)
"""


def test_a_library_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "needs the package monai: No module named 'monai'; pip install monai" in first
    assert "needs the package dynamic-network-architectures" in second
    assert second.endswith("pip install nnunetv2")


def test_pages_name_the_class(cli: Callable[..., tuple[int, str, str]]) -> None:
    page = archspec.describe(spec()).text()
    assert "\nnetwork  SegResNet " in page and "decoder" not in page
    code, out, _ = cli("validate", "segresnet", "--patch", "12,16,16")
    assert code == 0 and out == "segresnet: ok, patch [12, 16, 16], padded to [16, 16, 16]\n"
    code, _, err = cli("ablate", "segresnet", "--dry-run")
    assert code == 2 and err.count("\n") == 1
    assert "is a network of a library, which has no parts to exchange" in err


def test_export_says_which_parameters_get_no_gradient(preprocessed: Path) -> None:
    args = {"feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2}
    unetr = spec(name="UNETR", args=args, divisor=16)
    export = archspec.export_nnunet({**unetr, "patch_size": [16] * 3}, 901)
    (note,) = (note for note in export.notes if "no output depends on" in note)
    assert note.startswith("no output depends on 24 of UNETR's parameters")
    written = json.loads(export.path.read_text())["configurations"]["3d_fullres"]["architecture"]
    assert written["arch_kwargs"]["spec"]["network"]["args"] == args
    quiet = archspec.export_nnunet({**spec(), "name": "quiet"}, 901)
    assert not [note for note in quiet.notes if "no output depends on" in note]
