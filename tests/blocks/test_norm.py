"""Norms: what each word builds, and what is refused at a shape."""

import pytest
import torch

from blocks.base import SpecError, StageShape
from blocks.layers.norm import build_norm, check_norm

WORDS = ["none", "instance", "instance_affine", "layer", "batch", "group1", "group(4)"]


@pytest.mark.parametrize("grid", [(3, 5), (3, 5, 2)])
@pytest.mark.parametrize("word", WORDS)
def test_norm_keeps_shape(word: str, grid: tuple[int, ...]) -> None:
    at = StageShape(8, grid)
    check_norm(word, at, field="norm")
    x = torch.randn(2, 8, *grid) * 3 + 1
    out = build_norm(word, at)(x)
    assert out.shape == x.shape
    if word != "none":
        assert abs(out.mean().item()) < 1e-5
        assert abs(out.std(unbiased=False).item() - 1) < 0.05


def test_layer_norm_is_local() -> None:
    norm = build_norm("layer", StageShape(8, (4, 4)))
    x = torch.randn(1, 8, 4, 4)
    changed = x.clone()
    changed[..., 0, 0] += torch.randn(8)
    same = norm(x) == norm(changed)
    assert same[..., 1:].all()
    assert not same[..., 0, 0].all()


@pytest.mark.parametrize("word", ["instance", "instance_affine", "batch"])
def test_statistics_need_two_positions(word: str) -> None:
    check_norm(word, StageShape(8, (1, 1, 2)), field="norm")
    with pytest.raises(SpecError, match=r"^norm: .* one position .* use layer or group1"):
        check_norm(word, StageShape(8, (1, 1, 1)), field="norm")


def test_groups_divide_channels() -> None:
    with pytest.raises(SpecError, match=r"^norm: 'group\(3\)' needs channels divisible by 3.* 16"):
        check_norm("group(3)", StageShape(16, (4, 4)), field="norm")
