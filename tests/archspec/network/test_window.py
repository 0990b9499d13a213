"""Any input size: padded at the far end inside the network, and cropped again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import archspec
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.window import far_end, next_size

PATCHES = [(40, 56, 40), (9, 33, 17), (24, 20)]


def thin(name: str, patch: tuple[int, ...], **fields: Any) -> Plan:
    """Return the plan of a small network of that mixer at the patch."""
    stages = [
        {"width": 4, "downsample": {"stride": 2}, "mixer": {"kind": "conv"}},
        {"width": 6, "downsample": {"stride": 2}, "mixer": {"kind": name}},
    ]
    tree = {"name": "thin", "patch_size": list(patch), "encoder": {"stages": stages}, **fields}
    return archspec.plan({"decoder": {"kind": "concat", "head": "transpose"}, **tree})


@pytest.mark.parametrize("kind", ["conv", "mamba", "tom", "attention"])
@pytest.mark.parametrize("patch", [(10, 14, 9), (10, 7)])
def test_equals_the_padded_input_cropped(kind: str, patch: tuple[int, ...]) -> None:
    planned = thin(kind, patch)
    padded = planned.padded_size
    assert padded == next_size(patch, planned.total_stride) != patch
    torch.manual_seed(0)
    net = build_plan(planned)
    x = torch.randn(2, 1, *patch, requires_grad=True)
    whole = build_plan(archspec.plan(planned.spec, patch_size=padded))
    whole.load_state_dict(net.state_dict())
    filled = F.pad(x, far_end(patch, padded))
    window = (..., *(slice(n) for n in patch))
    expected = whole(filled)[window]
    found = net(x)
    assert torch.equal(found, expected)
    parameters = list(net.parameters())
    weight = torch.randn(found.shape)
    ours = torch.autograd.grad((found * weight).sum(), [x, *parameters])
    theirs = torch.autograd.grad((expected * weight).sum(), [x, *whole.parameters()])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_sizes_that_divide_are_left_alone(spec_name: str, shrunk: Callable[..., Plan]) -> None:
    planned = shrunk(spec_name)
    assert planned.padded_size == planned.patch_size
    assert planned.padding == 1 and not planned.heads_left_out


THREE_AXES = {"primus-s", "segmaformer-acdc", "segmaformer-synapse"}
"""A class that is 3-D alone, and networks whose kernels are given per axis."""


@pytest.mark.parametrize("name", archspec.list_specs())
@pytest.mark.parametrize("patch", PATCHES)
def test_every_bundled_spec_takes_any_patch(name: str, patch: tuple[int, ...]) -> None:
    if len(patch) == (2 if name in THREE_AXES else 3 if name == "timm-convnext-tiny" else 0):
        with pytest.raises(archspec.SpecError):
            archspec.plan(name, patch_size=patch)
        return
    planned = archspec.plan(name, patch_size=patch)
    assert planned.patch_size == patch == planned.output_grids[0]
    assert all(n <= m for n, m in zip(patch, planned.padded_size, strict=True))


@pytest.mark.parametrize("name", ["unet", "segmamba-released", "segmaformer", "small-unet"])
def test_bundled_networks_run_at_a_planned_patch(name: str) -> None:
    patch = (40, 56, 40)
    with torch.device("meta"):
        net = archspec.build(name, in_channels=1, num_classes=3, patch_size=patch)
        x = torch.empty(1, 1, *patch)
    out = net(x)
    assert isinstance(out, Tensor) and out.shape == (1, 3, *patch)
    net.decoder.deep_supervision = True
    outputs = net(x)
    planned = archspec.plan(name, in_channels=1, num_classes=3, patch_size=patch)
    heads = [tuple(one.shape[2:]) for one in outputs]
    grids = list(planned.output_grids)
    assert heads == (grids if len(grids) > 1 else [patch, (40, 56, 20)])


def test_other_inputs_than_the_patch() -> None:
    net = build_plan(thin("mamba", (10, 14, 9))).eval()
    for size in [(8, 8, 8), (5, 6, 7), (12, 13, 4)]:
        x = torch.randn(1, 1, *size)
        padded = F.pad(x, far_end(size, next_size(size, net.total_stride)))
        window = (..., *(slice(n) for n in size))
        torch.testing.assert_close(net(x), net(padded)[window])


def test_compiled() -> None:
    net = build_plan(thin("conv", (10, 14, 9))).eval()
    x = torch.randn(1, 1, 10, 14, 9)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), net(x))


def test_costs_are_those_of_the_padded_size() -> None:
    planned = archspec.cost("unet", in_channels=1, num_classes=3, patch_size=(40, 56, 40))
    whole = archspec.cost("unet", in_channels=1, num_classes=3, patch_size=(64, 64, 64))
    assert planned.macs == whole.macs
    found = archspec.describe("unet", in_channels=1, num_classes=3, patch_size=(40, 56, 40))
    assert "input 1 x 1 x 40 x 56 x 40 -> 64 x 64 x 64" in found.text()
    (note,) = (note for note in found.notes if "padding" in note)
    assert note.startswith("padding makes 2.9 times the voxels") and "--stages-from-dataset" in note


def test_heads_that_do_not_divide_are_not_built() -> None:
    spec = archspec.load(
        "small-unet", overrides=["deep_supervision.heads=2", "encoder.stages.0.downsample.stride=1"]
    )
    assert len(archspec.plan(spec, patch_size=(32, 32, 34)).output_grids) == 2
    odd = archspec.plan(spec, patch_size=(32, 32, 33))
    assert len(odd.output_grids) == 1 and odd.heads_left_out == 1
    assert len(build_plan(odd).decoder.seg_layers) == 1


def test_a_forced_number_of_slices_takes_the_next_patch_that_suits() -> None:
    planned = archspec.plan("segmamba-released", patch_size=(16, 32, 48))
    assert planned.padded_size != (16, 32, 48)
    with pytest.raises(archspec.SpecError, match=r"num_slices"):
        archspec.plan("segmamba-released", patch_size=(16, 32, 48), exact=True)
