"""Every backend against the reference's written-out loops: shapes, strides, precisions, bits."""

from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from torch import Tensor

from blocks.scan.backends import reference
from blocks.scan.orders import axis_order

pytestmark = pytest.mark.smoke

NAMES = ("out", "du", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias", "dz")
# Orders of a grid of 5 x 7 x 2 that swap axes: whd, hdw and dwh, one of them from its end.
SWAPPED = (
    axis_order((5, 7, 2), (2, 1, 0)),
    axis_order((5, 7, 2), (1, 0, 2), mirrored=True),
    axis_order((5, 7, 2), (0, 2, 1)),
)
# All twelve orders of three axes of different lengths.
EVERY = tuple(
    axis_order((2, 3, 5), axes, mirrored=mirrored)
    for axes in permutations(range(3))
    for mirrored in (False, True)
)
# batch, tokens, channels, states, orders
SHAPES = [
    (1, 1, 1, 1, (1,)),
    (2, 2, 5, 8, (1, -1)),
    (1, 2, 17, 16, (2, -1, 1)),
    (3, 31, 33, 1, (1, 31)),
    (1, 31, 7, 64, (-1,)),
    (2, 60, 20, 3, (1, -1, 5)),
    (1, 192, 16, 16, (1, -1, 4)),
    (1, 70, 17, 4, (-5, *SWAPPED[:2])),
    (2, 70, 2, 3, (SWAPPED[2], -14)),
    (1, 30, 2, 2, EVERY),
]
LONG = (1, 4096, 5, 8, (1, -1, 16))

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def make_inputs(
    batch: int, length: int, channels: int, states: int, orders: Sequence[int]
) -> Inputs:
    """Return inputs as the mixers have them: delta, B, C and z are slices of projections."""
    directions = len(orders)
    tokens = (batch, directions, length)
    projected = torch.randn(*tokens, 2 + 2 * states + channels)
    _, B, C, delta = projected.split([2, states, states, channels], dim=-1)
    gate = torch.randn(batch, length, 2 * channels)[..., channels:]
    decay = -torch.rand(directions, channels, states) * 4 - 0.1
    bias = torch.randn(directions, channels) - 2
    skip = torch.randn(directions, channels)
    return torch.randn(*tokens, channels), delta, decay, B, C, skip, bias, gate


def run(inputs: Inputs, orders: Sequence[int], cotangent: Tensor) -> tuple[Tensor, ...]:
    """Return the operator's output and gradients."""
    out, boundaries = torch.ops.archspec.selective_scan(*inputs, list(orders))
    grads = torch.ops.archspec.selective_scan_backward(cotangent, *inputs, boundaries, list(orders))
    return (out, *grads)


def wanted(inputs: Inputs, orders: Sequence[int], cotangent: Tensor) -> tuple[Tensor, ...]:
    """Return the reference's results in float64."""
    exact = [t.double() for t in inputs]
    out, boundaries = reference.selective_scan(*exact, orders)
    grads = reference.selective_scan_backward(cotangent.double(), *exact, boundaries, orders)
    return (out, *grads)


def compare(found: tuple[Tensor, ...], good: tuple[Tensor, ...], tolerance: float) -> None:
    for name, got, want in zip(NAMES, found, good, strict=True):
        atol = tolerance * max(1.0, want.abs().max().item())
        torch.testing.assert_close(
            got.double(), want, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32(backend: str, shape: tuple[int, int, int, int, tuple[int, ...]]) -> None:
    inputs, orders = make_inputs(*shape), shape[-1]
    cotangent = torch.randn(shape[0], shape[1], shape[2])
    compare(run(inputs, orders, cotangent), wanted(inputs, orders, cotangent), 5e-6)


@pytest.mark.parametrize("shape", SHAPES[3:6], ids=str)
def test_float64(backend: str, shape: tuple[int, int, int, int, tuple[int, ...]]) -> None:
    inputs, orders = tuple(t.double() for t in make_inputs(*shape)), shape[-1]
    cotangent = torch.randn(shape[0], shape[1], shape[2]).double()
    found = run(inputs, orders, cotangent)  # type: ignore[arg-type]
    assert all(t.dtype == torch.float64 for t in found)
    compare(found, wanted(inputs, orders, cotangent), 1e-12)  # type: ignore[arg-type]


def test_many_tokens(backend: str) -> None:
    if backend == "triton":
        pytest.skip("Triton's interpreter takes minutes for 4096 tokens")
    inputs, orders = make_inputs(*LONG), LONG[-1]
    cotangent = torch.randn(1, 4096, 5)
    compare(run(inputs, orders, cotangent), wanted(inputs, orders, cotangent), 5e-6)


def test_extreme_time_steps(backend: str) -> None:
    """Decays from exactly 1 down to 0, softplus from its linear to its exponential end."""
    u, _, A, *rest = make_inputs(1, 66, 5, 4, (1, -1))
    delta = torch.linspace(-40, 40, u.numel()).view(u.shape)
    inputs = (u, delta, A, *rest)
    cotangent = torch.randn(1, 66, 5)
    found = run(inputs, (1, -1), cotangent)  # type: ignore[arg-type]
    compare(found, wanted(inputs, (1, -1), cotangent), 5e-6)  # type: ignore[arg-type]


def test_not_a_number_stays_in_its_channel(backend: str) -> None:
    inputs = make_inputs(1, 66, 5, 4, (1,))
    inputs[0][0, 0, 40, 2] = float("nan")
    out = torch.ops.archspec.selective_scan(*inputs, [1])[0]
    bad = out[0].isnan()
    assert bad[40:, 2].all()
    assert bad.sum() == 26


def test_two_runs_give_the_same_bits(backend: str) -> None:
    orders = (1, -1, 5)
    inputs = make_inputs(2, 70, 20, 16, orders)
    cotangent = torch.randn(2, 70, 20)
    first, second = (run(inputs, orders, cotangent) for _ in range(2))
    for name, one, other in zip(NAMES, first, second, strict=True):
        assert torch.equal(one, other), name
