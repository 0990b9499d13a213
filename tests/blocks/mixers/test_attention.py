"""Attention: its formula, the reduced keys, rotary positions, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import FixedTrial
from torch import Tensor, nn

import archspec
from archspec.costs.memory import training_memory
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.nnunet.contract import network_arguments
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.yaml_file import dump
from blocks.base import SpecError, StageShape
from blocks.mixers.attention import Attention, AttentionMixerSpec
from search.space.space import load_space

GRIDS = [(4, 6), (2, 3, 4)]


def build(channels: int, grid: tuple[int, ...], **fields: Any) -> Attention:
    at = StageShape(channels, grid)
    spec = AttentionMixerSpec(**fields)
    spec.check(at)
    built = spec.build(at)
    assert isinstance(built, Attention)
    return built


def by_hand(mixer: Attention, x: Tensor, scale: float) -> Tensor:
    """Return what attention without reduction gives, one head and one softmax at a time."""
    tokens = x.flatten(2).transpose(1, 2)
    size = x.shape[1] // mixer.num_heads
    q, (k, v) = mixer.query(tokens), mixer.key_value(tokens).chunk(2, dim=-1)
    heads = [
        torch.softmax(q[..., i : i + size] @ k[..., i : i + size].mT / scale, dim=-1)
        @ v[..., i : i + size]
        for i in range(0, x.shape[1], size)
    ]
    out: Tensor = mixer.proj(torch.cat(heads, dim=-1))
    return out.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("scale", "root"), [("head_dim", 8), ("num_heads", 3)])
def test_scores_are_scaled(grid: tuple[int, ...], scale: str, root: int) -> None:
    mixer = build(24, grid, num_heads=3, scale=scale).double()
    x = 3 * torch.randn(2, 24, *grid, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), by_hand(mixer, x, root**0.5))


def test_bias_of_the_projections() -> None:
    with_bias, without = build(8, (2, 2)), build(8, (2, 2), qkv_bias=False)
    assert with_bias.query.bias.shape == (8,)
    assert with_bias.key_value.bias.shape == (16,)
    assert without.query.bias is None
    assert without.key_value.bias is None
    assert without.proj.bias is not None


@pytest.mark.parametrize(("reduction", "want"), [(2, (2, 2)), ([1, 2], (1, 2)), ([4, 1], (4, 1))])
def test_reduced_keys(reduction: Any, want: tuple[int, ...]) -> None:
    """Keys that average each patch: the mixer gives what attention to those averages gives."""
    if isinstance(reduction, list):
        reduction = tuple(reduction)
    mixer = build(6, (4, 4), reduction=reduction).double()
    assert isinstance(mixer.reduce, nn.Conv2d)
    assert mixer.reduce.kernel_size == mixer.reduce.stride == want
    mixer.reduce_norm = nn.Identity()
    with torch.no_grad():
        mixer.reduce.weight.zero_().diagonal().fill_(1 / (want[0] * want[1]))
        mixer.reduce.bias.zero_()
    x = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    averages = nn.functional.avg_pool2d(x, want).flatten(2).mT
    k, v = mixer.key_value(averages).chunk(2, dim=-1)
    weights = torch.softmax(mixer.query(x.flatten(2).mT) @ k.mT / 6**0.5, dim=-1)
    torch.testing.assert_close(mixer(x), mixer.proj(weights @ v).mT.reshape(x.shape))


def test_rope_with_auto_is_that_of_the_number() -> None:
    planned = plan(load(auto((18, 14), rope="axial")))
    assert reduction_of(planned) == (3, 1)
    torch.manual_seed(0)
    net = archspec.build(auto((18, 14), rope="axial"))
    torch.manual_seed(0)
    other = archspec.build(auto((18, 14), rope="axial", reduction=(3, 1)))
    x = torch.randn(1, 1, 18, 14)
    assert torch.equal(net(x), other(x))


def test_rope_may_be_drawn(tmp_path: Path) -> None:
    """`theta` is a hole like any number, in a member of a choice too."""
    tree = auto((16, 16), reduction=2)
    mixer = {**tree["encoder"]["stages"][0]["mixer"], "rope": "axial"}
    tree["encoder"]["stages"][0]["mixer"] = {
        "choice": [{"kind": "conv"}, {**mixer, "theta": {"float": [10.0, 1e4], "log": True}}]
    }
    path = tmp_path / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    space = load_space(path)
    drawn = {"encoder.stages.0.mixer": "attention", "encoder.stages.0.mixer[attention].theta": 99.0}
    found = space.draw(FixedTrial(drawn)).stages[0].spec.mixer
    assert isinstance(found, AttentionMixerSpec) and found.theta == 99.0


@pytest.mark.parametrize("grid", GRIDS)
def test_rope_tells_positions_apart(grid: tuple[int, ...]) -> None:
    """Without positions a permutation of tokens permutes the output; with them it does not."""
    x = torch.randn(1, 24, *grid)
    for rope, same in (("none", True), ("axial", False)):
        mixer = build(24, grid, num_heads=2, rope=rope)
        moved = mixer(x.roll(1, -1)).roll(-1, -1) - mixer(x)
        assert bool(moved.abs().max() < 1e-5) is same
    assert not [n for n, _ in mixer.named_parameters() if "rope" in n]
    assert not [n for n in mixer.state_dict() if "rope" in n]


@pytest.mark.parametrize("rope", ["none", "axial"])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_bfloat16_autocast(rope: str, size: float) -> None:
    mixer = build(24, (4, 4, 4), num_heads=2, rope=rope)
    x = size * torch.randn(2, 24, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = mixer(x)
        out.float().square().mean().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in mixer.parameters() if p.grad is not None)
    if size == 1:
        torch.testing.assert_close(out.float(), mixer(x), rtol=0.05, atol=0.02)


def refused(channels: int, grid: list[int], **mixer: Any) -> str:
    stage = {"width": channels, "mixer": {"kind": "attention", **mixer}}
    spec = load(
        {
            "name": "net",
            "patch_size": grid,
            "encoder": {"stages": [{**stage, "downsample": {"stride": 2}}]},
            "decoder": {"kind": "mlp"},
        }
    )
    with pytest.raises(SpecError) as caught:
        plan(spec, InputSizes(exact=True))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("encoder.stages.0.mixer.")


def test_refusals() -> None:
    assert refused(16, [8, 8], num_heads=3) == (
        "num_heads: 3 must divide the width 16; nearest: num_heads 2 or 4, or width 15 or 18"
    )
    assert refused(32, [8, 8], num_heads=5).endswith("num_heads 4 or 8, or width 30 or 35")
    assert refused(32, [8, 8], num_heads=99).endswith("num_heads 32, or width 99")
    message = refused(16, [24, 40, 16], reduction=[4, 4, 3])
    assert message.startswith("reduction: grid [12, 20, 8] must ")
    assert message.endswith("nearest: [24, 40, 12] or [24, 40, 18]")
    message = refused(16, [8, 8, 8], reduction=[2, 2])
    assert message.startswith("reduction: [2, 2] has 2 entries")
    assert refused(64, [8, 8, 8], num_heads=16, rope="axial") == (
        "rope: 'axial' on 3 axes needs head dims of at least 6, but 64 / 16 heads = 4; "
        "nearest: num_heads 8, or width 96, or rope: none"
    )
    assert refused(6, [8, 8], num_heads=3, rope="axial").endswith(
        "heads = 2; nearest: num_heads 1, or width 12, or rope: none"
    )
    assert refused(24, [8, 8], theta=10.0) == (
        "theta: goes with rope: axial, not none; leave it out"
    )


def test_inputs_must_suit_the_reduction() -> None:
    """A network refuses inputs whose inner grid the reduction would cut short."""
    stage = {"width": 8, "downsample": {"stride": 2}, "mixer": {"kind": "identity"}}
    coarse = {**stage, "mixer": {"kind": "attention", "reduction": [3, 2]}}
    spec = load(
        {
            "name": "net",
            "patch_size": [24, 32],
            "encoder": {"stages": [stage, coarse, stage]},
            "decoder": {"kind": "mlp"},
        }
    )
    assert plan(spec).total_stride == (24, 8)


@pytest.mark.parametrize("patch", [[16, 24], [16, 24, 8]])
def test_cost_of_reduced_attention(patch: list[int]) -> None:
    """Both products are counted, and what backward keeps has no matrix of scores in it."""
    mixer = {"kind": "attention", "num_heads": 2, "reduction": 4}
    stage = {"width": 8, "downsample": {"stride": 2}, "mixer": mixer}
    spec = {"name": "net", "patch_size": patch, "decoder": {"kind": "mlp"}}
    counted = archspec.cost({**spec, "encoder": {"stages": [stage]}})
    part = counted.by_path["stages.0.blocks.0.mixer"]
    names = ("query", "key_value", "proj", "reduce")
    inner = sum(counted.by_path[f"stages.0.blocks.0.mixer.{name}"].macs for name in names)
    tokens = int(np.prod(patch)) // 2 ** len(patch)
    assert part.macs - inner == 2 * tokens * (tokens // 4 ** len(patch)) * 8
    whole = archspec.cost(
        {**spec, "encoder": {"stages": [{**stage, "mixer": {**mixer, "reduction": 1}}]}}
    )
    scores = 2 * tokens**2 * 4
    assert whole.activation_bytes - counted.activation_bytes < scores


def auto(patch: tuple[int, ...], block: str = "residual", **mixer: Any) -> dict[str, Any]:
    """Return a spec with attention of a reduction that is left to a grid of half the patch."""
    stage = {"width": 6, "downsample": {"stride": 2}, "block": {"kind": block, "norm": "layer"}}
    stage["mixer"] = {"kind": "attention", "reduction": "auto", **mixer}
    spec = {"name": "net", "patch_size": patch, "decoder": {"kind": "mlp"}}
    return {**spec, "encoder": {"stages": [stage]}}


def reduction_of(planned: Plan) -> Any:
    mixer = planned.stages[0].spec.mixer
    assert isinstance(mixer, AttentionMixerSpec)
    return mixer.reduction


@pytest.mark.parametrize("axes", [2, 3])
def test_auto_is_the_largest_divisor_up_to_four_and_pads_nothing(axes: int) -> None:
    """Per axis of the grid at the padded size, odd ones included; planned again it stays."""
    draw = np.random.default_rng(axes)
    for patch in draw.integers(1, 40, size=(20, axes)).tolist():
        planned = plan(load(auto(tuple(patch))))
        assert planned.padded_size == tuple(n + n % 2 for n in patch), "what the stride asks for"
        want = tuple(
            next(r for r in (4, 3, 2, 1) if n % r == 0) for n in planned.stages[0].out.grid
        )
        found = reduction_of(planned)
        assert found == (want[0] if len(set(want)) == 1 else want)
        assert planned.total_stride == tuple(2 * r for r in want)
        assert plan(planned.spec, planned.sizes) == planned
        assert plan(planned.spec, InputSizes(patch_size=planned.padded_size, exact=True))


@pytest.mark.parametrize(
    ("grid", "want"), [((11, 12), (2, 3)), ((16, 16), 4), ((12, 8, 7), (3, 4, 2))]
)
def test_auto_asks_what_the_block_asks_for(grid: tuple[int, ...], want: Any) -> None:
    """CMMB mixes at half the grid, made even; a reduction of up to 2 asks nothing of the stage."""
    patch = tuple(2 * n for n in grid)
    assert reduction_of(plan(load(auto(patch, block="cmmb")))) == want
    for axis, n in enumerate(grid):
        for r in range(1, 5):
            fixed = tuple(r if a == axis else 1 for a in range(len(grid)))
            padded = plan(load(auto(patch, block="cmmb", reduction=fixed))).padded_size
            largest = want if isinstance(want, int) else want[axis]
            if r >= largest:
                assert (padded[axis] == 2 * n) is (r == largest)


def test_few_positions_are_not_reduced() -> None:
    for most, want in ((64, 1), (63, 4), (1, 4)):
        planned = plan(load(auto((16, 16), reduce_above=most)))
        assert reduction_of(planned) == want
    same = plan(load(auto((16, 16), reduction=1)))
    full = plan(load(auto((16, 16), reduce_above=64)))
    assert arch_hash(full.spec) == arch_hash(same.spec), "what is built says all"


@pytest.mark.parametrize("patch", [(18, 14), (10, 6, 18)])
def test_auto_is_the_number_that_it_stands_for(patch: tuple[int, ...]) -> None:
    """Cost, memory and weights; and another size of input is padded to what the number needs."""
    planned = plan(load(auto(patch)))
    number = load(auto(patch, reduction=reduction_of(planned)))
    assert planned.spec == number
    assert archspec.cost(auto(patch)).macs == archspec.cost(number).macs
    assert training_memory(planned, batch=2) == training_memory(plan(number), batch=2)
    torch.manual_seed(0)
    net = archspec.build(auto(patch)).eval()
    torch.manual_seed(0)
    other = archspec.build(number).eval()
    assert net.state_dict().keys() == other.state_dict().keys()
    for shift in (0, 3, 7):
        size = tuple(n + shift for n in patch)
        x = torch.randn(1, 1, *size)
        with torch.no_grad():
            out = net(x)
            assert torch.equal(out, other(x))
        assert out.shape == (1, 2, *size)
    assert net.total_stride == planned.total_stride


def test_an_export_has_the_number() -> None:
    """Weights that were trained at a patch fit the network that its plans describe."""
    planned = plan(load(auto((18, 14))))
    (written,) = network_arguments(planned)["spec"]["encoder"]["stages"]
    assert written["mixer"]["reduction"] == list(reduction_of(planned)) == [3, 1]
    assert written["mixer"]["reduce_above"] is None


def test_refusals_of_auto() -> None:
    assert refused(24, [8, 8], reduction=2, reduce_above=9) == (
        "reduce_above: goes with reduction: auto, not 2; leave it out"
    )
    with pytest.raises(SpecError, match=r"mixer\.reduction: must be a positive .*; or auto, but"):
        load(auto((8, 8), reduction="automatic"))
