"""Every component in a small network, in 2-D and 3-D; nothing here names a component."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.spec.schema import ArchSpec
from archspec.testing import check_component, check_shapes
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


def test_a_component_keeps_every_rule(component: Component) -> None:
    """Shapes, gradients, meta, YAML, state dict, autocast and nnU-Net's contract, 2-D and 3-D."""
    (example,) = component.values()
    check_component(example)


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
