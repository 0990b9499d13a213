"""Gradient norms per scan direction, dead ones, and parameters that get none."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from archspec.network.build import build
from archspec.network.segnet import SegNet
from archspec.overfit.gradients import direction_norms, gradient_norm, without_gradient
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec
from blocks.layers.scan_branch import ScanBranch
from blocks.layers.traits import HasDirections
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.mamba import MambaMixerSpec
from blocks.mixers.tom import TomMixer, TomMixerSpec

SpecFactory = Callable[..., ArchSpec]


def backward(net: SegNet) -> None:
    out = net(torch.randn(1, 1, 16, 32, 16))
    assert isinstance(out, torch.Tensor)
    out.square().mean().backward()  # type: ignore[no-untyped-call]


def test_directions_of_tom(small_spec: SpecFactory) -> None:
    net = build(small_spec(3, mixer=TomMixerSpec(d_state=4)))
    backward(net)
    norms = direction_norms(net)
    assert list(norms) == [f"stages.{i}.blocks.0.mixer" for i in range(3)]
    for found in norms.values():
        assert list(found) == ["forward", "reverse", "inter_slice"]
        assert all(0 < norm < math.inf for norm in found.values())
    mixer = net.get_submodule("stages.1.blocks.0.mixer")
    assert isinstance(mixer, TomMixer)
    squares = sum(float(p.grad.square().sum()) for p in mixer.branches[2].parameters())
    assert norms["stages.1.blocks.0.mixer"]["inter_slice"] == pytest.approx(math.sqrt(squares))
    assert without_gradient(net) == []


@pytest.mark.parametrize(("directions", "names"), [(1, ["forward"]), (2, ["forward", "reverse"])])
def test_directions_of_mamba(small_spec: SpecFactory, directions: int, names: list[str]) -> None:
    net = build(small_spec(3, mixer=MambaMixerSpec(d_state=4, directions=directions)))
    backward(net)
    assert [list(found) for found in direction_norms(net).values()] == [names] * 3


def test_every_scan_of_every_mixer_is_told_by_its_direction(
    mixer: ComponentSpec, ndim: int, small_spec: SpecFactory
) -> None:
    net = build(small_spec(ndim, mixer=mixer))
    told = {
        id(own)
        for module in net.modules()
        if isinstance(module, HasDirections)
        for own in module.directions.values()
    }
    assert told == {id(module) for module in net.modules() if isinstance(module, ScanBranch)}


def test_a_scan_layer_from_elsewhere_is_found() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(1, 1), nn.Linear(1, 1)

        @property
        def directions(self) -> dict[str, nn.Module]:
            return {"down": self.down, "up": self.up}

    net = nn.Sequential(nn.Identity(), Layer())
    net[1].get_submodule("up")(torch.ones(1, 1)).sum().backward()
    (found,) = direction_norms(net).items()
    assert found == ("1", {"down": 0.0, "up": pytest.approx(math.sqrt(2))})


def test_no_scans_no_directions(small_spec: SpecFactory) -> None:
    net = build(small_spec(3, mixer=ConvMixerSpec()))
    backward(net)
    assert direction_norms(net) == {}


def test_dead_directions_and_silent_parameters(small_spec: SpecFactory) -> None:
    """A frozen output projection of zeros cuts all directions of its mixer off, and only those."""
    net = build(small_spec(3, mixer=TomMixerSpec(d_state=4), heads=2))
    cut = net.get_submodule("stages.1.blocks.0.mixer")
    assert isinstance(cut, TomMixer)
    cut.out_proj.weight.requires_grad_(False).zero_()
    backward(net)
    norms = direction_norms(net)
    assert set(norms["stages.1.blocks.0.mixer"].values()) == {0.0}
    assert min(norms["stages.0.blocks.0.mixer"].values()) > 0
    silent = without_gradient(net)
    assert "stages.1.blocks.0.mixer.branches.2.A_log" in silent
    assert "stages.1.blocks.0.mixer.out_proj.weight" not in silent
    assert {name for name in silent if "mixer" not in name} <= {
        name for name, _ in net.named_parameters() if "seg_layers.1" in name or "stages.1" in name
    }
    assert "decoder.seg_layers.1.weight" in silent
    assert gradient_norm(cut) == 0.0
