"""Scan orders are permutations with the documented meaning."""

import itertools
import math

import pytest
import torch

from blocks.scan.orders import FORWARD, REVERSE, axis_order, order_index

CPU = torch.device("cpu")


def test_directions() -> None:
    assert order_index(FORWARD, 5, CPU).tolist() == [0, 1, 2, 3, 4]
    assert order_index(REVERSE, 5, CPU).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(("slices", "length"), [(2, 6), (3, 6), (6, 6), (4, 64)])
def test_inter_slice_order(slices: int, length: int) -> None:
    rows = order_index(slices, length, CPU).tolist()
    for m in range(length // slices):
        for s in range(slices):
            assert rows[m * slices + s] == s * (length // slices) + m


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    "grid", [(3, 4), (1, 5), (5, 1), (2, 3, 4), (4, 1, 3), (1, 3, 2), (2, 2, 1)]
)
def test_axes_from_the_slowest_to_the_fastest(grid: tuple[int, ...], mirrored: bool) -> None:
    tokens = torch.arange(math.prod(grid)).view(grid)
    for axes in itertools.permutations(range(len(grid))):
        want = tokens.permute(axes).flatten()
        found = order_index(axis_order(grid, axes, mirrored=mirrored), tokens.numel(), CPU)
        assert torch.equal(found, want.flip(0) if mirrored else want), axes


def test_toms_orders_are_permutations_of_axes() -> None:
    assert axis_order((4, 6, 5), (0, 1, 2)) == FORWARD
    assert axis_order((4, 6, 5), (0, 1, 2), mirrored=True) == REVERSE
    assert axis_order((4, 6, 5), (1, 2, 0)) == 4
    assert axis_order((4, 6), (1, 0)) == 4


def test_axes_longer_than_an_order_can_say() -> None:
    assert order_index(axis_order((1, 2**16, 2), (0, 2, 1)), 2**17, CPU)[1] == 2
    with pytest.raises(ValueError, match="no room"):
        axis_order((1, 2**16 + 1, 2), (0, 2, 1))
    with pytest.raises(ValueError, match="no room"):
        axis_order((2**16, 2**15), (1, 0))


@pytest.mark.parametrize("order", [0, -4, 4, axis_order((1, 2, 2), (0, 2, 1))])
def test_order_must_fit(order: int) -> None:
    with pytest.raises(ValueError, match=f"scan order {order} does not fit 6 tokens"):
        order_index(order, 6, CPU)
