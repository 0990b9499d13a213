"""Every component in a small network, in 2-D and 3-D; nothing here names a component."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load, validate
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import dump, parse
from blocks.base import ComponentSpec

SpecFactory = Callable[..., ArchSpec]
Component = dict[str, ComponentSpec]

STRIDES = [
    ([2, 2], [20, 12]),
    ([1, 3, 2], [6, 18]),
    ([[2, 1], [2, 2]], [12, 10]),
    ([1, 2, 2], [12, 4, 20]),
    ([[1, 2, 2], 2], [6, 12, 20]),
    ([[1, 2, 2], [1, 2, 2]], [5, 12, 4]),
    ([3], [9, 15, 3]),
]
"""Strides of the stages, and a patch size with odd grids somewhere."""


def record_shapes(net: SegNet, x: Tensor) -> tuple[list[tuple[int, ...]], list[Tensor]]:
    """Return the shape of every stage's output, and the network's outputs."""
    shapes: list[tuple[int, ...]] = []
    hooks = [
        stage.register_forward_hook(
            lambda _module, _inputs, outs: shapes.append(tuple(outs[0].shape))
        )
        for stage in net.stages
    ]
    out = net(x)
    for hook in hooks:
        hook.remove()
    return shapes, [out] if isinstance(out, Tensor) else out


def check_shapes(net: SegNet, planned: Plan, x: Tensor) -> None:
    """Compare a forward pass, with and without deep supervision, with what the plan says."""
    planned_shapes = [(len(x), at.channels, *at.grid) for at in planned.skips]
    shapes, outputs = record_shapes(net, x)
    assert shapes == planned_shapes
    assert [tuple(out.shape) for out in outputs] == [(len(x), planned.num_classes, *x.shape[2:])]
    net.decoder.deep_supervision = True
    _, outputs = record_shapes(net, x)
    net.decoder.deep_supervision = False
    grids = [tuple(out.shape[2:]) for out in outputs]
    if len(planned.output_grids) > 1:
        assert grids == list(planned.output_grids)
    assert grids == nnunet_target_grids(planned)


def nnunet_target_grids(planned: Plan) -> list[tuple[int, ...]]:
    """Return the grids of nnU-Net's targets.

    Source: nnUNetTrainer._get_deep_supervision_scales (2.8.1) and DownsampleSegForDSTransform.
    """
    scales = 1 / np.cumprod(np.vstack(planned.strides), axis=0)
    return [
        tuple(round(n * s) for n, s in zip(planned.patch_size, row, strict=True))
        for row in scales[:-1]
    ]


def test_forward_matches_plan(component: Component, ndim: int, small_spec: SpecFactory) -> None:
    planned = plan(small_spec(ndim, **component, heads=2), in_channels=3, num_classes=4)
    net = build_plan(planned)
    x = torch.randn(2, 3, *planned.patch_size)
    check_shapes(net, planned, x)
    assert torch.isfinite(net(x)).all()


def test_every_parameter_has_gradient(
    component: Component, ndim: int, small_spec: SpecFactory
) -> None:
    planned = plan(small_spec(ndim, **component, heads=2))
    net = build_plan(planned)
    net.decoder.deep_supervision = True
    sum(out.square().mean() for out in net(torch.randn(2, 1, *planned.patch_size))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_meta_equals_real(component: Component, ndim: int, small_spec: SpecFactory) -> None:
    planned = plan(small_spec(ndim, **component, heads=2))
    with torch.device("meta"):
        net = build_plan(planned)
        check_shapes(net, planned, torch.empty(1, 1, *planned.patch_size))
    assert all(parameter.is_meta for parameter in net.parameters())
    real = build_plan(planned).state_dict()
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in real.items()
    }


def test_yaml_round_trip(component: Component, ndim: int, small_spec: SpecFactory) -> None:
    spec = small_spec(ndim, **component)
    text = dump(spec.tree())
    again = validate(parse(text, "net.yaml"))
    assert again == spec
    assert dump(again.tree()) == text
    assert load(spec.tree()) == spec


def test_state_dict_reloads(component: Component, ndim: int, small_spec: SpecFactory) -> None:
    planned = plan(small_spec(ndim, **component, heads=2))
    first, second = build_plan(planned).eval(), build_plan(planned).eval()
    x = torch.randn(1, 1, *planned.patch_size)
    second.decoder.deep_supervision = True
    assert list(first.state_dict()) == list(second.state_dict())
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(first(x), second(x)[0], rtol=0, atol=0)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_strides_and_patches(
    component: Component, every: bool, small_spec: SpecFactory, request: pytest.FixtureRequest
) -> None:
    """Each component at all strides under `long`, else at two, in turn: all strides occur."""
    first = request.node.callspec.indices["component"]
    for offset in range(len(STRIDES) if every else 2):
        check_strides(component, *STRIDES[(first + 3 * offset) % len(STRIDES)], small_spec)


def check_strides(
    component: Component, strides: list[Any], patch_size: list[int], small_spec: SpecFactory
) -> None:
    planned = plan(small_spec(len(patch_size), **component, strides=strides, patch_size=patch_size))
    with torch.device("meta"):
        check_shapes(build_plan(planned), planned, torch.empty(2, 1, *patch_size))


def test_mixer_trains_with_decoder(
    mixer: ComponentSpec,
    decoder: ComponentSpec,
    ndim: int,
    small_spec: SpecFactory,
    train_step: Callable[[nn.Module, Tensor], float],
) -> None:
    planned = plan(small_spec(ndim, mixer=mixer, decoder=decoder))
    net = build_plan(planned)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    assert train_step(net, torch.randn(2, 1, *planned.patch_size)) < 10
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter).all(), name
    assert any(not torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_other_input_sizes(component: Component, ndim: int, small_spec: SpecFactory) -> None:
    net = build_plan(plan(small_spec(ndim, **component)))
    grid = tuple(3 * step for step in net.total_stride)
    assert net(torch.randn(1, 1, *grid)).shape[2:] == grid
    longer = tuple(n + 1 for n in grid)
    assert net(torch.randn(1, 1, *longer)).shape[2:] == longer
