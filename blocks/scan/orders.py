"""Scan orders as row indices over the flattened grid.

An order is one integer: 1 reads tokens first to last, -1 last to first, and S > 1 is SegMamba's
inter-slice order with S slices: position m * S + s reads token s * (L / S) + m.

Source: SegMamba, arXiv 2401.13560, section 2.2; github.com/ge-xing/SegMamba@cff3597,
mamba/mamba_ssm/modules/mamba_simple.py.
"""

import torch
from torch import Tensor

FORWARD = 1
REVERSE = -1


def check_order(order: int, length: int) -> None:
    """Refuse an order that does not fit.

    Raises:
        ValueError: the order is 0 or below -1, or its slices do not divide the length.
    """
    if order < REVERSE or order == 0 or (order > 0 and length % order):
        raise ValueError(f"scan order {order} does not fit {length} tokens")


def order_index(order: int, length: int, device: torch.device) -> Tensor:
    """Return the (L,) tokens in the order in which the scan reads them.

    Raises:
        ValueError: the order does not fit the length.
    """
    check_order(order, length)
    tokens = torch.arange(length, device=device)
    if order == REVERSE:
        return tokens.flip(0)
    return tokens.view(order, length // order).t().reshape(length)
