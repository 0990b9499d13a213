"""Scan orders by the axes' names: what they read, and what is refused."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.network.build import build_plan
from archspec.network.plan import plan
from archspec.spec.hashing import is_hash_of
from archspec.spec.load import load
from archspec.testing import check_component
from blocks.base import Grid, SpecError, StageShape
from blocks.mixers.mamba import MambaMixerSpec
from blocks.mixers.tom import TomMixerSpec

NAMES = {2: "hw", 3: "dhw"}
GRIDS: tuple[Grid, ...] = ((3, 4), (2, 3, 4))


def along(x: Tensor, axes: tuple[int, ...], *, mirrored: bool) -> Tensor:
    """Return volumes whose row-major order is that of the axes."""
    turned = x.permute(0, 1, *(axis + 2 for axis in axes))
    return turned.flip(tuple(range(2, x.ndim))) if mirrored else turned


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_order_reads_a_turned_volume(backend: str, grid: Grid) -> None:
    """Forward and backward, against the forward scan of a copy that lies in that order."""
    if backend == "triton":
        pytest.skip("minutes interpreted; test_triton.py has the orders")
    names, x = NAMES[len(grid)], torch.randn(2, 3, *grid, dtype=torch.float64)
    weight = torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).view(x[0].shape)
    at = StageShape(3, grid)
    plain = MambaMixerSpec(d_state=2, d_conv=3).build(at).double()
    for axes, mirrored in itertools.product(
        itertools.permutations(range(len(grid))), (False, True)
    ):
        name: Any = "-" * mirrored + "".join(names[axis] for axis in axes)
        mixer = MambaMixerSpec(d_state=2, d_conv=3, orders=(name,)).build(at).double()
        mixer.load_state_dict(plain.state_dict())
        ours, turned = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = mixer(ours)
        want = plain(along(turned, axes, mirrored=mirrored))
        torch.testing.assert_close(along(found, axes, mirrored=mirrored), want, msg=name)
        grads = torch.autograd.grad((found * weight).sum(), (ours, *mixer.parameters()))
        pulled = (want * along(weight[None], axes, mirrored=mirrored)).sum()
        wanted = torch.autograd.grad(pulled, (turned, *plain.parameters()))
        for one, other in zip(grads, wanted, strict=True):
            torch.testing.assert_close(one, other, msg=name)


def network(ndim: int, mixer: dict[str, Any]) -> Any:
    stage = {"width": 8, "downsample": {"stride": 2}, "mixer": mixer}
    return {
        "name": "net",
        "patch_size": [8, 8, 16][:ndim],
        "encoder": {"stages": [stage]},
        "decoder": {"kind": "sum"},
    }


def test_toms_words_are_axes() -> None:
    """The same weights are drawn for both, by `init: released` too, and the same logits come."""
    made = []
    for orders in (("forward", "reverse", "inter_slice"), ("dhw", "-dhw", "hwd")):
        torch.manual_seed(0)
        made.append(TomMixerSpec(orders=orders).build(StageShape(4, (2, 3, 4))))
    assert list(made[0].state_dict()) == list(made[1].state_dict())
    x = torch.randn(1, 4, 2, 3, 4)
    assert torch.equal(made[0](x), made[1](x))
    assert list(made[1].directions) == ["dhw", "-dhw", "hwd"]


def test_a_word_may_be_there_twice_as_in_earlier_releases() -> None:
    """Each has weights of its own; the hash and the logits are those that 047295c gave."""
    orders = ["forward", "inter_slice", "forward"]
    spec = load(network(3, {"kind": "tom", "orders": orders}))
    assert is_hash_of("40976e325e4049fe", spec, "arch")
    torch.manual_seed(0)
    net = build_plan(plan(spec)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        logits = net(torch.randn(1, 1, 8, 8, 16))
    assert float(logits.double().abs().sum()) == pytest.approx(557.1550508728251, rel=1e-5)


def test_directions_are_orders() -> None:
    made = []
    for fields in ({"directions": 2}, {"orders": ("hw", "reverse")}):
        torch.manual_seed(0)
        made.append(MambaMixerSpec(**fields).build(StageShape(4, (3, 4))))
    x = torch.randn(1, 4, 3, 4)
    assert torch.equal(made[0](x), made[1](x))
    assert list(made[1].directions) == ["hw", "reverse"]


def test_orders_are_those_of_the_reduced_grid() -> None:
    fields: dict[str, Any] = {"d_state": 2, "reduction": (1, 2)}
    turned, plain = (
        MambaMixerSpec(orders=(name,), **fields).build(StageShape(4, (3, 4)))
        for name in ("wh", "hw")
    )
    turned.load_state_dict(plain.state_dict())
    plain.reduce, reduce = torch.nn.Sequential(), plain.reduce
    small = reduce(torch.ones(1, 4, 3, 4) * torch.arange(12.0).view(3, 4))
    want = plain(small.mT).mT
    turned.reduce = torch.nn.Sequential()
    torch.testing.assert_close(turned(small), want)


@pytest.mark.parametrize(
    ("axes", "wrong", "message"),
    [
        (
            2,
            {"kind": "mamba", "orders": ["hw", "dhw"]},
            "orders: dhw must be an order of the 2 axes that patch_size has; allowed: forward, "
            "reverse, inter_slice, hw, wh, and - before axes to read from the end",
        ),
        (
            3,
            {"kind": "tom", "orders": ["-wh"]},
            "orders: -wh must be an order of the 3 axes that patch_size has; allowed: forward, "
            "reverse, inter_slice, dhw, dwh, hdw, hwd, wdh, whd, and - before axes to read from "
            "the end",
        ),
        (
            3,
            {"kind": "tom", "orders": ["dhw", "whd", "whd"]},
            "orders: whd is there twice; leave one out",
        ),
        (
            3,
            {"kind": "mamba", "orders": ["reverse", "-dhw"]},
            "orders: -dhw is there as reverse, which reads alike; leave one out",
        ),
        (
            2,
            {"kind": "tom", "orders": ["wh", "inter_slice"]},
            "orders: inter_slice is there as wh, which reads alike; leave one out",
        ),
        (
            2,
            {"kind": "mamba", "directions": 2, "orders": ["hw"]},
            "directions: 2 directions and orders are two answers to the same question; leave "
            "directions at 1, or orders out",
        ),
    ],
)
def test_refused(axes: int, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(load(network(axes, wrong)))
    assert str(caught.value) == f"encoder.stages.0.mixer.{message}"


def test_a_word_that_is_no_order() -> None:
    with pytest.raises(SpecError) as caught:
        load(network(3, {"kind": "mamba", "orders": ["dhw", "wdd"]}))
    assert str(caught.value) == (
        "spec: encoder.stages.0.mixer.orders.1: 'wdd' is not allowed; allowed: forward, reverse, "
        "inter_slice, dhw, dwh, hdw, hwd, wdh, whd, hw, wh, -dhw, -dwh, -hdw, -hwd, -wdh, -whd, "
        "-hw, -wh; did you mean 'whd'?"
    )


def test_slices_of_their_own_are_no_axes() -> None:
    mixer = {"kind": "tom", "num_slices": 2, "orders": ["inter_slice", "wh"]}
    plan(load(network(2, mixer)))


@pytest.mark.parametrize("spec", [MambaMixerSpec, TomMixerSpec])
@pytest.mark.parametrize(("axes", "orders"), [(2, ("wh", "-hw")), (3, ("whd", "-hdw", "hwd"))])
def test_as_a_component(spec: Any, axes: int, orders: Any) -> None:
    check_component(spec(d_state=2, orders=orders), ndims=[axes])
