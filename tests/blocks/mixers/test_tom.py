"""ToM against SegMamba's own layer, and what is special about it.

Data: tests/golden/segmamba/README.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError, StageShape
from blocks.layers.scan_branch import ScanBranch, scan_branches
from blocks.mixers.tom import TomMixer, TomMixerSpec
from blocks.scan.orders import order_index
from blocks.wrappers.residual import ResidualBlockSpec

FOLDER = Path(__file__).parents[2] / "golden" / "segmamba"
SUFFIXES = ("", "_b", "_s")
DIRECTIONS = ("y_forward", "y_reverse_unflipped", "y_interslice_unpermuted")


def our_name(key: str) -> str:
    """Return the parameter of our block for the official layer's."""
    if key.startswith("norm."):
        return key
    word = key.removeprefix("mamba.")
    if word.startswith(("in_proj", "out_proj")):
        return f"mixer.{word}"
    index = next((i for i in (1, 2) if SUFFIXES[i] in word.replace("_log", "")[1:]), 0)
    return f"mixer.branches.{index}.{word.replace(SUFFIXES[index], '', 1)}"


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(array).double()


@pytest.fixture(params=["tom_c8", "tom_c20"])
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    with np.load(FOLDER / f"{request.param}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def layer(golden: dict[str, Any]) -> nn.Module:
    _, channels, *grid = golden["input"].shape
    at = StageShape(channels, tuple(grid))
    assert golden["nslices"] == grid[0]
    made = ResidualBlockSpec().build(at, mixer=TomMixerSpec().build(at), ffn=None).double()
    weights = {
        our_name(name.removeprefix("param/")): tensor(value)
        for name, value in golden.items()
        if name.startswith("param/")
    }
    made.load_state_dict(weights)
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_output_and_gradients(
    golden: dict[str, Any], layer: nn.Module, backend: str, dtype: torch.dtype
) -> None:
    layer.to(dtype)
    x = tensor(golden["input"]).to(dtype).requires_grad_()
    out = layer(x)
    close = {torch.float64: 1e-10, torch.float32: 2e-5}[dtype]
    torch.testing.assert_close(out.double(), tensor(golden["output_f64"]), rtol=0, atol=close)
    out.backward(tensor(golden["dout"]).to(dtype))
    grads = {name: parameter.grad for name, parameter in layer.named_parameters()}
    grads["input"] = x.grad
    wanted = {
        name.removeprefix("grad_f64/"): tensor(value)
        for name, value in golden.items()
        if name.startswith("grad_f64/")
    }
    assert len(wanted) == len(grads)
    for name, want in wanted.items():
        found = grads["input" if name == "input" else our_name(name)]
        assert found is not None
        atol = close * max(1.0, want.abs().max().item())
        torch.testing.assert_close(found.double(), want, rtol=close, atol=atol, msg=name)


def test_every_direction(golden: dict[str, Any], layer: nn.Module) -> None:
    x = tensor(golden["input"])
    normed = layer.norm(x)
    tokens = normed.flatten(2).mT
    torch.testing.assert_close(tokens, tensor(golden["norm_out"]), rtol=0, atol=1e-10)
    mixer = layer.mixer
    torch.testing.assert_close(
        mixer(normed).flatten(2).mT, tensor(golden["mamba_out"]), rtol=0, atol=1e-10
    )
    inner, z = mixer.in_proj(tokens).chunk(2, dim=-1)
    orders = mixer.orders_at(tuple(x.shape[2:]))
    for branch, order, name in zip(mixer.branches, orders, DIRECTIONS, strict=True):
        y = scan_branches(nn.ModuleList([branch]), inner, z, [order])
        torch.testing.assert_close(y.mT, tensor(golden[name]), rtol=0, atol=1e-10, msg=name)
    perm = torch.from_numpy(golden["interslice_perm"])
    assert torch.equal(order_index(orders[2], tokens.shape[1], x.device), perm)


@pytest.mark.parametrize("grid", [(4, 6), (4, 6, 5)])
def test_slices_run_along_depth(grid: tuple[int, ...]) -> None:
    mixer = TomMixerSpec().build(StageShape(4, grid))
    assert isinstance(mixer, TomMixer)
    assert mixer.orders_at(grid) == (1, -1, 4)
    tokens = torch.arange(int(np.prod(grid))).view(grid)
    rows = order_index(4, tokens.numel(), tokens.device)
    assert torch.equal(tokens.flatten()[rows], tokens.movedim(0, -1).flatten())
    forced = TomMixerSpec(num_slices=3).build(StageShape(4, grid))
    assert isinstance(forced, TomMixer)
    assert forced.orders_at(grid) == (1, -1, 3)
    x = torch.randn(2, 4, *grid)
    forced.load_state_dict(mixer.state_dict())
    assert not torch.allclose(forced(x), mixer(x))


def test_slices_follow_the_input(small_spec: Callable[..., ArchSpec]) -> None:
    net = build_plan(plan(small_spec(3, mixer=TomMixerSpec(), strides=[2], patch_size=[4, 4, 4])))
    seen: list[tuple[int, ...]] = []
    mixer = net.stages[0].blocks[0].mixer
    orders_at = mixer.orders_at
    mixer.orders_at = lambda grid: seen.append(orders_at(grid)) or orders_at(grid)
    net(torch.randn(1, 1, 4, 4, 4))
    net(torch.randn(1, 1, 10, 4, 4))
    assert seen == [(1, -1, 2), (1, -1, 5)]


@pytest.mark.parametrize(
    ("slices", "grid", "nearest"),
    [
        (64, (3, 5, 5), "25 or 75, or null for the grid's depth, 3"),
        (4, (3, 5), "3 or 5, or null for the grid's depth, 3"),
        (100, (3, 5), "15, or null for the grid's depth, 3"),
    ],
)
def test_slices_that_do_not_divide(slices: int, grid: tuple[int, ...], nearest: str) -> None:
    with pytest.raises(SpecError) as caught:
        TomMixerSpec(num_slices=slices).check(StageShape(8, grid))
    said = str(caught.value)
    assert said.startswith(f"num_slices: {slices} slices along depth, axis 0 of grid {list(grid)}")
    assert f"must divide its {np.prod(grid)} tokens" in said
    assert said.endswith(f"nearest: {nearest}")
    TomMixerSpec(num_slices=slices, orders=("forward",)).check(StageShape(8, grid))


def test_forced_slices_refuse_other_sizes(small_spec: Callable[..., ArchSpec]) -> None:
    fixed = TomMixerSpec(num_slices=4)
    net = build_plan(plan(small_spec(2, mixer=fixed, strides=[2], patch_size=[8, 6])))
    assert net(torch.randn(1, 1, 4, 4)).shape == (1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"num_slices: 4 must divide the 15 tokens of grid \[5, 3"):
        net(torch.randn(1, 1, 10, 6))


def test_plan_says_where(small_spec: Callable[..., ArchSpec]) -> None:
    spec = small_spec(3, mixer=TomMixerSpec(num_slices=64))
    with pytest.raises(SpecError, match=r"^encoder\.stages\.1\.mixer\.num_slices: 64 slices"):
        plan(spec, patch_size=(8, 32, 24))


@pytest.mark.parametrize("orders", [("forward", "reverse", "inter_slice"), ("reverse",)])
def test_released_draws_what_it_always_drew(orders: Any) -> None:
    """One draw more or less would start every later layer of a network otherwise."""
    at = StageShape(8, (4, 4))
    torch.manual_seed(3)
    TomMixerSpec(orders=orders).build(at)
    after = torch.rand(1)
    torch.manual_seed(3)
    nn.Linear(8, 32, bias=False)
    for _ in orders:
        ScanBranch(16, d_state=16, d_conv=4, dt_rank=1)
    for _ in [order for order in orders if order != "forward"]:
        nn.Linear(1, 16)
    nn.Linear(16, 8, bias=False)
    assert torch.equal(torch.rand(1), after)


def test_only_the_forward_scan_has_mambas_time_steps() -> None:
    mixer = TomMixerSpec().build(StageShape(64, (4, 4)))
    assert isinstance(mixer, TomMixer)
    forward, *others = (b for b in mixer.branches if isinstance(b, ScanBranch))
    steps = nn.functional.softplus(forward.dt_proj.bias)
    assert 1e-4 <= steps.min() < steps.max() <= 0.1 + 1e-6
    torch.manual_seed(0)
    mambas = TomMixerSpec(init="mamba").build(StageShape(64, (4, 4)))
    assert isinstance(mambas, TomMixer)
    for branch in (b for b in mambas.branches if isinstance(b, ScanBranch)):
        steps = nn.functional.softplus(branch.dt_proj.bias)
        assert 1e-4 <= steps.min() < 0.004 and 0.03 < steps.max() <= 0.1 + 1e-6
        assert branch.dt_proj.weight.abs().max() <= branch.dt_rank**-0.5
    for branch in others:
        bound = branch.dt_rank**-0.5
        assert branch.dt_proj.bias.abs().max() <= bound
        assert nn.functional.softplus(branch.dt_proj.bias).min() > 0.4
        assert branch.dt_proj.weight.abs().max() <= bound


def test_fewer_orders() -> None:
    at = StageShape(8, (4, 4))
    whole = TomMixerSpec().build(at)
    one = TomMixerSpec(orders=("forward",)).build(at)
    one.load_state_dict(whole.state_dict(), strict=False)
    x = torch.randn(1, 8, 4, 4)
    tokens = whole.in_proj(x.flatten(2).mT)
    y = scan_branches(nn.ModuleList([whole.branches[0]]), *tokens.chunk(2, dim=-1), [1])
    torch.testing.assert_close(one(x).flatten(2).mT, whole.out_proj(y))
