"""Scan orders are permutations with the documented meaning."""

import pytest
import torch

from blocks.scan.orders import FORWARD, REVERSE, order_index

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


@pytest.mark.parametrize("order", [0, -2, 4])
def test_order_must_fit(order: int) -> None:
    with pytest.raises(ValueError, match=f"scan order {order} does not fit 6 tokens"):
        order_index(order, 6, CPU)
