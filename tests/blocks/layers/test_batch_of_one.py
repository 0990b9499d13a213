"""Norms in front of mixers and FFNs at batch 1, where memory layouts are ambiguous.

PyTorch 2.15's batch norm on the CPU, which instance norm uses too, returns wrong gradients there,
without a word, where the features are contiguous and their gradient comes from
`(B, L, C).transpose(1, 2).view(B, C, *grid)`: see tests/golden/segformer3d/README.md.
"""

import pytest
import torch
from torch import nn

from blocks.base import LayerSpec, StageShape
from blocks.layers.norm import build_norm

NORMS = ["batch", "instance", "instance_affine", "group1", "layer"]


def check(layers: nn.Module, x: torch.Tensor) -> None:
    """Compare the gradients of one volume with the average ones of two copies of it."""
    found = []
    for copies in (1, 2):
        inputs = x.repeat(copies, *(1,) * (x.ndim - 1)).requires_grad_()
        layers.zero_grad()
        (layers(inputs).sin().sum() / copies).backward()
        assert inputs.grad is not None
        found.append([inputs.grad.sum(0), *(p.grad.clone() for p in layers.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("norm", NORMS)
def test_gradient_from_a_mixer(norm: str, mixer: LayerSpec, ndim: int) -> None:
    at = StageShape(16, (4, 2, 4)[:ndim])
    layers = nn.Sequential(build_norm(norm, at), mixer.build(at))  # type: ignore[attr-defined]
    check(layers.double(), torch.randn(1, 16, *at.grid, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_gradient_from_an_ffn(norm: str, ffn: LayerSpec, ndim: int) -> None:
    at = StageShape(16, (4, 2, 4)[:ndim])
    layers = nn.Sequential(build_norm(norm, at), ffn.build(at) or nn.Identity())  # type: ignore[attr-defined]
    check(layers.double(), torch.randn(1, 16, *at.grid, dtype=torch.float64))
