"""Every bundled spec, in 2-D and 3-D, at a small patch; nothing here names a spec."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.network.build import build_plan
from archspec.network.plan import Plan, plan
from archspec.spec.load import load, validate
from archspec.spec.yaml_file import dump, parse

pytestmark = pytest.mark.smoke

Shrink = Callable[..., Plan]


DIMENSIONS = ["own", "other"]
FLAT_FIRST = ["flat", *(pytest.param(word, marks=pytest.mark.long) for word in DIMENSIONS)]


@pytest.fixture
def planned(spec_name: str, dimensions: str, shrunk: Shrink) -> Plan:
    """Return the plan in the spec's own dimensions, in the other ones, or in two if it can be."""
    spec = load(spec_name)
    native = len(spec.patch_size)
    per_axis = any(isinstance(s.downsample.stride, tuple) for s in spec.encoder.stages)
    per_axis |= spec.network is not None and spec.network.name == "Primus"  # 3-D alone
    per_axis |= spec.network is None and not spec.encoder.stages  # timm's, 2-D alone
    if dimensions == "own" or (dimensions == "flat" and per_axis):
        return shrunk(spec_name, native)
    if per_axis:
        pytest.skip("its strides are given per axis, or it is 2-D or 3-D alone")
    return shrunk(spec_name, 2 if dimensions == "flat" else 5 - native)


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_forward_and_gradients(planned: Plan) -> None:
    net = build_plan(planned)
    net.decoder.deep_supervision = True
    outputs = net(torch.randn(2, planned.in_channels, *planned.patch_size))
    if len(planned.output_grids) > 1:
        assert [tuple(out.shape[2:]) for out in outputs] == list(planned.output_grids)
    assert outputs[0].shape == (2, planned.num_classes, *planned.patch_size)
    sum(out.square().mean() for out in outputs).backward()
    for name, parameter in net.named_parameters():
        if planned.spec.name == "unetr" and "norm_cross_attn" in name:
            continue  # MONAI's blocks have a norm for a cross-attention that UNETR has not
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("dimensions", FLAT_FIRST)
def test_trains_one_step(planned: Plan, train_step: Callable[[nn.Module, Tensor], float]) -> None:
    net = build_plan(planned)
    # SegFormer3D's own start values make logits with a standard deviation of 9.
    assert train_step(net, torch.randn(2, planned.in_channels, *planned.patch_size)) < 30
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())


@pytest.mark.parametrize("dimensions", FLAT_FIRST)
def test_state_dict_reloads(planned: Plan) -> None:
    first, second = build_plan(planned).eval(), build_plan(planned).eval()
    second.decoder.deep_supervision = True
    second.load_state_dict(first.state_dict())
    second.decoder.deep_supervision = False
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    with torch.no_grad():
        torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)


def test_own_patch_on_meta(spec_name: str) -> None:
    planned = plan(load(spec_name))
    with torch.device("meta"):
        net = build_plan(planned)
        x = torch.empty(1, planned.in_channels, *planned.patch_size)
        shapes = []
        for stage in net.stages:
            stage.register_forward_hook(
                lambda _m, _i, outs: shapes.append(tuple(outs[0].shape[1:]))
            )
        assert net(x).shape == (1, planned.num_classes, *planned.patch_size)
    behind = [stage.out for stage in planned.stages] or planned.skips[-1:]  # timm's is one stage
    assert shapes == [(shape.channels, *shape.grid) for shape in behind]


def test_yaml_round_trip(spec_name: str) -> None:
    spec = load(spec_name)
    text = dump(spec.tree())
    again = validate(parse(text, "net.yaml"))
    assert again == spec
    assert dump(again.tree()) == text


def test_name_is_the_file_name(spec_name: str) -> None:
    spec = load(spec_name)
    assert spec.name == spec_name
    assert spec.title
    assert archspec.list_specs(spec_name) == [spec_name]
