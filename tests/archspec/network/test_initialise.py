"""`init` leaves alone what keeps its own start values, and silences what adds to a shortcut."""

from typing import ClassVar, get_args

import pytest
import torch
from torch import nn

from archspec.network.initialise import initialise
from archspec.spec.schema import Init


class Timed(nn.Module):
    """A layer from elsewhere whose start values mean something."""

    keeps_start: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.Conv3d(1, 1, 3))
        for parameter in self.parameters():
            nn.init.constant_(parameter, 7.0)


class Block(nn.Module):
    """A block from elsewhere whose second norm comes right before its sum."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.InstanceNorm3d(2, affine=True) for _ in range(2))

    @property
    def last_norm(self) -> nn.Module:
        return self.norms[1]


@pytest.mark.parametrize("init", get_args(Init))
def test_a_module_that_says_so_keeps_its_start(init: Init) -> None:
    plain, net = nn.Linear(2, 2), nn.Sequential(Timed())
    nn.init.constant_(plain.weight, 7.0)
    net.append(plain)
    initialise(net, init)
    assert all(bool((p == 7).all()) for p in net[0].parameters())
    changed = bool((plain.weight != 7).all())
    assert changed is (init == "segformer"), "of the two only segformer's is about linear layers"


@pytest.mark.parametrize("init", get_args(Init))
def test_nnunet_s_blocks_start_as_their_shortcut(init: Init) -> None:
    net = nn.Sequential(Block())
    initialise(net, init)
    first, last = (torch.unique(norm.weight).tolist() for norm in net[0].norms)
    assert first == [1.0]
    assert last == ([0.0] if init == "nnunet" else [1.0])
