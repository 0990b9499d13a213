"""Axial rotary positions: the formula, a prefix of the head, and reduced keys."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.base import StageShape
from blocks.layers.axial_rope import AxialRope
from blocks.mixers.attention import Attention, AttentionMixerSpec

FILE = Path(__file__).parents[2] / "golden" / "segformer3d" / "rope3d.npz"


def test_axial_rope_equals_timm() -> None:
    with np.load(FILE, allow_pickle=False) as data:
        given, want, table = (
            torch.from_numpy(data[name]) for name in ("qk_in", "qk_out_timm", "timm_embed")
        )
        grid = tuple(int(n) for n in data["grid"])
    rope = AxialRope(given.shape[-1], ndim=3, theta=1e4)
    torch.testing.assert_close(rope.table.get_embed(list(grid)), table, rtol=0, atol=1e-6)
    torch.testing.assert_close(rope(given, grid), want, rtol=0, atol=1e-6)


def test_axial_rope_in_two_dimensions() -> None:
    """At one depth, the two last thirds of the stored channels are turned as an image's are."""
    with np.load(FILE, allow_pickle=False) as data:
        given, want = (torch.from_numpy(data[name]) for name in ("qk_in", "qk_out_timm"))
        depth, *grid = (int(n) for n in data["grid"])
    third = given.shape[-1] // 3
    given, want = (x[..., third:].unflatten(2, (depth, -1)) for x in (given, want))
    rope = AxialRope(2 * third, ndim=2, theta=1e4)
    for level in range(depth):
        turned = rope(given[:, :, level], tuple(grid))
        torch.testing.assert_close(turned, want[:, :, level], rtol=0, atol=1e-6)
    assert (given - want).abs().max() > 0.1


@pytest.mark.parametrize("grid", [(6, 6), (5, 6, 7)])
def test_rotated_scores_see_differences_only(grid: tuple[int, ...]) -> None:
    rope = AxialRope(12, ndim=len(grid), theta=1e4)
    q, k = torch.randn(2, 12)
    rows, columns = (
        rope(tokens.expand(1, 1, int(np.prod(grid)), 12), grid).view(*grid, 12) for tokens in (q, k)
    )
    start, step = (0,) * len(grid), tuple(range(1, len(grid) + 1))
    scores = [
        rows[at] @ columns[tuple(a + s for a, s in zip(at, step, strict=True))]
        for at in (start, (1,) * len(grid), (2, *start[1:]))
    ]
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])
    assert (scores[0] - rows[start] @ columns[start]).abs() > 1e-3


def angles_by_hand(places: list[list[float]], bands: int, theta: float) -> Tensor:
    """Return the angle of every pair of channels at each place, axis after axis."""
    return torch.tensor(
        [[p * theta ** (-j / bands) for p in at for j in range(bands)] for at in places]
    )


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Return (L, head_dim) with its first pairs turned, as complex numbers, and the rest kept."""
    pairs = torch.view_as_complex(x[:, : 2 * angles.shape[1]].unflatten(1, (-1, 2)).contiguous())
    first = torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(1)
    return torch.cat([first, x[:, 2 * angles.shape[1] :]], dim=1)


@pytest.mark.parametrize(("head_dim", "grid", "bands"), [(11, (2, 3), 2), (64, (2, 1, 3), 10)])
@pytest.mark.parametrize("theta", [1e4, 7.0])
def test_rope_turns_a_prefix_of_the_head(
    head_dim: int, grid: tuple[int, ...], bands: int, theta: float
) -> None:
    x = torch.randn(int(np.prod(grid)), head_dim)
    angles = angles_by_hand([list(at) for at in np.ndindex(grid)], bands, theta)
    found = AxialRope(head_dim, ndim=len(grid), theta=theta)(x, grid)
    torch.testing.assert_close(found, turned(x, angles), rtol=0, atol=1e-5)
    kept = head_dim - 2 * bands * len(grid)
    assert 0 < kept < 2 * len(grid) and torch.equal(found[:, -kept:], x[:, -kept:])
    # what a width without a rest gives is the same numbers
    whole = AxialRope(head_dim - kept, ndim=len(grid), theta=theta)(x[:, :-kept], grid)
    assert torch.equal(found[:, :-kept], whole)


@pytest.mark.parametrize(
    ("grid", "reduction"), [((4, 6), (2, 3)), ((4, 2, 3), (4, 1, 3)), ((2, 4, 2), (2, 2, 2))]
)
def test_rope_of_reduced_keys(grid: tuple[int, ...], reduction: tuple[int, ...]) -> None:
    """Keys stand at the centres of their patches, in steps of the queries' grid."""
    spec = AttentionMixerSpec(reduction=reduction, rope="axial", theta=50.0)
    spec.check(StageShape(14, grid))
    mixer = spec.build(StageShape(14, grid))
    assert isinstance(mixer, Attention)
    x = torch.randn(1, 14, *grid)
    coarse = tuple(n // r for n, r in zip(grid, reduction, strict=True))
    assert mixer.reduce is not None
    centres = [
        [float(np.mean(range(i * r, i * r + r))) for i, r in zip(cell, reduction, strict=True)]
        for cell in np.ndindex(coarse)
    ]
    bands = 14 // (2 * len(grid))
    q = mixer.query(x.flatten(2).mT)[0]
    k, v = mixer.key_value(mixer.reduce_norm(mixer.reduce(x).flatten(2).mT))[0].chunk(2, dim=-1)
    q = turned(q, angles_by_hand([list(at) for at in np.ndindex(grid)], bands, 50.0))
    k = turned(k, angles_by_hand(centres, bands, 50.0))
    want = mixer.proj(torch.softmax(q @ k.mT / 14**0.5, dim=-1) @ v)
    torch.testing.assert_close(mixer(x)[0].flatten(1).mT, want, rtol=0, atol=1e-5)
