"""Costs against independent counts: by hand, by a real run, and by what backward really keeps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import archspec
from archspec.building import build_plan
from archspec.costing import Cost, cost_plan
from archspec.planning import Plan, plan
from archspec.spec import ArchSpec
from blocks.base import ComponentSpec, SpecError

SpecFactory = Callable[..., ArchSpec]


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Return the bytes of the storages, other than parameters', that a forward pass keeps."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(x)
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    sizes = [t.untyped_storage().nbytes() for key, t in kept.items() if key not in parameters]
    del out
    return sum(sizes)


def check_against_real_run(planned: Plan) -> Cost:
    counted = cost_plan(planned)
    net = build_plan(planned)
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert counted.flops == counter.get_total_flops()
    assert counted.params == sum(p.numel() for p in net.parameters())
    assert counted.activation_bytes == pytest.approx(saved_bytes(net, x), rel=0.01)
    check_sums(counted, net)
    return counted


def check_sums(counted: Cost, net: nn.Module) -> None:
    """Check that modules' shares add up: exactly for the network, at most for inner modules."""
    paths = counted.by_path
    assert set(paths) == {name for name, _ in net.named_modules() if name}
    tops = [paths[name] for name, _ in net.named_children()]
    assert sum(part.params for part in tops) == counted.params
    assert sum(part.macs for part in tops) == counted.macs
    assert sum(part.scan_flops for part in tops) == counted.scan_flops
    for name, module in net.named_modules():
        parts = [paths[f"{name}.{child}"] for child, _ in module.named_children()] if name else []
        if parts:
            assert sum(part.macs for part in parts) <= paths[name].macs, name
            assert sum(part.flops for part in parts) <= paths[name].flops, name
            assert sum(part.params for part in parts) <= paths[name].params, name


def test_bundled_spec(spec_name: str, shrunk: Callable[..., Plan]) -> None:
    check_against_real_run(shrunk(spec_name))


def test_component(component: dict[str, ComponentSpec], ndim: int, small_spec: SpecFactory) -> None:
    check_against_real_run(plan(small_spec(ndim, **component)))


def test_mixer_with_decoder(
    mixer: ComponentSpec, decoder: ComponentSpec, ndim: int, small_spec: SpecFactory
) -> None:
    check_against_real_run(plan(small_spec(ndim, mixer=mixer, decoder=decoder, heads=2)))


BY_HAND = {
    "name": "by-hand",
    "in_channels": 3,
    "num_classes": 5,
    "patch_size": [4, 6, 8],
    "encoder": {
        "stages": [{"width": 2, "downsample": {"stride": 2}, "mixer": {"kind": "identity"}}]
    },
    "decoder": {"kind": "sum"},
}


def test_convolutions_by_hand() -> None:
    counted = archspec.cost(BY_HAND)
    positions = 2 * 3 * 4
    stem, head = positions * 2 * 3 * 27, positions * 5 * 2
    assert counted.by_path["stages.0.downsample.0"].macs == stem
    assert counted.by_path["decoder.seg_layers"].macs == head
    assert counted.macs == stem + head
    assert counted.flops == 2 * counted.macs
    assert counted.scan_flops == 0
    layer_norm = 2 * 2
    assert counted.params == (2 * 3 * 27 + 2) + (5 * 2 + 5) + layer_norm


@pytest.mark.parametrize("directions", [1, 2])
def test_mamba_by_hand(directions: int) -> None:
    mixer = {"kind": "mamba", "d_state": 7, "d_conv": 4, "expand": 3, "directions": directions}
    stage = {"width": 20, "downsample": {"stride": 2}, "mixer": mixer}
    counted = archspec.cost({**BY_HAND, "encoder": {"stages": [stage]}})
    length, channels, inner, states, rank = 24, 20, 60, 7, 2
    part = counted.by_path["stages.0.blocks.0.mixer"]
    assert counted.by_path["stages.0.blocks.0.mixer.in_proj"].macs == length * channels * 2 * inner
    assert counted.by_path["stages.0.blocks.0.mixer.out_proj"].macs == length * inner * channels
    branch = length * inner * 4 + length * inner * (rank + 2 * states) + length * rank * inner
    assert part.macs == length * channels * 3 * inner + directions * branch
    skip = length * inner
    assert part.scan_flops == directions * (9 * length * inner * states + skip) + length * inner
    assert counted.scan_flops == part.scan_flops


def test_known_counts() -> None:
    """Counts of the bundled specs; these numbers change only when a spec does."""
    assert archspec.cost("mamba-unet").params == 1_144_466
    assert archspec.cost("mamba-unet", num_classes=3).params == 1_144_466 + 17


def test_arguments_win() -> None:
    spec = archspec.load("small-unet")
    counted = archspec.cost(spec, in_channels=4, num_classes=4, patch_size=(32, 32, 64))
    net = archspec.build(spec, in_channels=4, num_classes=4, patch_size=(32, 32, 64))
    assert counted.params == sum(p.numel() for p in net.parameters())
    double = archspec.cost(spec, in_channels=4, num_classes=4, patch_size=(64, 32, 64))
    assert double.flops == 2 * counted.flops
    assert double.activation_bytes == pytest.approx(2 * counted.activation_bytes, rel=1e-3)


def test_grad_mode_does_not_matter() -> None:
    want = archspec.cost("mamba-unet", patch_size=(32, 32, 32))
    with torch.no_grad():
        assert archspec.cost("mamba-unet", patch_size=(32, 32, 32)) == want


def test_nothing_is_allocated() -> None:
    counted = archspec.cost("mamba-unet", patch_size=(1024, 1024, 1024))
    assert counted.activation_bytes > 1 << 37


def test_impossible_patch_is_refused() -> None:
    with pytest.raises(SpecError, match="must divide"):
        archspec.cost("mamba-unet", patch_size=(33, 32, 32))
