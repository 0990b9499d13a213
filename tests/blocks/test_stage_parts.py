"""Fields of down-sampling, local modules and skips beyond their defaults."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError, StageShape
from blocks.downsample.conv import DownsampleSpec
from blocks.local.gsc import GSCSpec
from blocks.skip.transform import SkipSpec

SpecFactory = Callable[..., ArchSpec]


def network(fields: dict[str, Any], last: dict[str, Any] | None = None) -> ArchSpec:
    stage = {"width": 4, "mixer": {"kind": "conv"}, **fields}
    return load(
        {
            "name": "net",
            "patch_size": [8, 12],
            "encoder": {"stages": [stage, {**stage, **(last or {})}]},
            "decoder": {"kind": "concat"},
        }
    )


@pytest.mark.parametrize(("inp", "out"), [(2, 6), (3, 6), (4, 4), (4, 6), (8, 4)])
@pytest.mark.parametrize("grid", [(8, 6), (8, 6, 4)])
def test_depthwise_stem(inp: int, out: int, grid: tuple[int, ...]) -> None:
    shapes = StageShape(inp, grid), StageShape(out, tuple(n // 2 for n in grid))
    stem = DownsampleSpec(kernel_size=7, groups="in").build(*shapes)
    x = torch.randn(2, inp, *grid)
    y = stem(x)
    assert y.shape == (2, out, *shapes[1].grid)
    assert stem[0].groups == inp
    separable = out % inp != 0
    assert {layer.kernel_size for layer in stem if hasattr(layer, "kernel_size")} == (
        {(7,) * len(grid), (1,) * len(grid)} if separable else {(7,) * len(grid)}
    )
    changed = x.clone()
    changed[:, 0] += 1
    moved = (stem[0](changed) != stem[0](x)).flatten(2).any(-1)[0]
    assert int(moved.sum()) == stem[0].out_channels // inp


def test_pre_norm_comes_first() -> None:
    shapes = StageShape(3, (8, 6)), StageShape(4, (4, 3))
    down = DownsampleSpec(kernel_size=2, pre="norm").build(*shapes)
    x = 5 + 3 * torch.randn(2, 3, 8, 6)
    torch.testing.assert_close(down(x), down[1](nn.functional.instance_norm(x)))
    with pytest.raises(SpecError, match=r"^pre: 'instance' over a grid of one .* use pre: none"):
        DownsampleSpec(stride=1, pre="norm").check(StageShape(3, (1, 1)), StageShape(4, (1, 1)))


def test_pre_norm_conv_norm(ndim: int) -> None:
    grid = (8, 6, 4)[:ndim]
    shapes = StageShape(3, grid), StageShape(4, tuple(n // 2 for n in grid))
    down = DownsampleSpec(kernel_size=2, pre="norm_conv_norm").build(*shapes)
    x = 5 + 3 * torch.randn(2, 3, *grid)
    refined = nn.functional.instance_norm(down[1](nn.functional.instance_norm(x)))
    torch.testing.assert_close(down(x), down[3](refined))
    assert (down[1].kernel_size, down[3].kernel_size) == ((3,) * ndim, (2,) * ndim)
    with pytest.raises(SpecError, match=r"^pre: 'instance' over a grid of one .* use pre: none"):
        DownsampleSpec(stride=1, pre="norm_conv_norm").check(
            StageShape(3, (1, 1)), StageShape(4, (1, 1))
        )


def test_activation_comes_last() -> None:
    shapes = StageShape(3, (8, 6)), StageShape(4, (4, 3))
    down = DownsampleSpec(norm="instance", act="leaky_relu").build(*shapes)
    x = torch.randn(2, 3, 8, 6)
    normed = nn.functional.instance_norm(down[0](x))
    torch.testing.assert_close(down(x), nn.functional.leaky_relu(normed, 0.01))


def test_post_stands_between_blocks_and_norm() -> None:
    post = {"kind": "conv", "kernel_size": [1, 3]}
    stage = build_plan(plan(network({"post": post, "norm": "instance"}))).stages[0]
    assert stage.post.kernel_size == (1, 3)
    x = torch.randn(2, 1, 8, 12)
    out, skip = stage(x)
    mixed = stage.blocks(stage.downsample(x))
    torch.testing.assert_close(out, nn.functional.instance_norm(stage.post(mixed)))
    assert skip is out


def test_post_needs_a_skip_behind_it() -> None:
    last = {"depth": 0, "post": {"kind": "conv"}}
    with pytest.raises(SpecError, match=r"^encoder\.stages\.1\.skip\.tap: .* no post and no norm"):
        plan(network({"skip": {"tap": "before_blocks"}}, last))


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_gsc_repeats(combine: Any, small_spec: SpecFactory) -> None:
    per_stage = GSCSpec(combine=combine)
    at = StageShape(4, (3, 5))
    one = sum(p.numel() for p in per_stage.build(at).parameters())
    counts = []
    for spec in (None, per_stage, GSCSpec(combine=combine, repeat="block")):
        local = {} if spec is None else {"local": spec.model_dump(mode="json")}
        net = build_plan(plan(network({"depth": 3, **local})))
        counts.append(sum(p.numel() for p in net.stages.parameters()))
    assert [n - counts[0] for n in counts] == [0, 2 * one, 2 * 3 * one]


def test_gsc_needs_positions() -> None:
    spec = network({"local": {"kind": "gsc"}})
    with pytest.raises(SpecError, match=r"^encoder\.stages\.1\.local\.kind: gsc: .* one position"):
        plan(spec, patch_size=(4, 4), exact=True)


def test_stage_without_blocks_has_no_local_for_them() -> None:
    spec = network({"local": {"kind": "gsc", "repeat": "block"}}, {"depth": 0})
    stage = build_plan(plan(spec)).stages[1]
    assert [name.split(".")[0] for name, _ in stage.named_parameters()] == ["downsample"] * 2


def stage_outputs(net: SegNet, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for stage in net.stages:
        stage.register_forward_hook(lambda _module, _inputs, outs: found.append(outs))
    net(x)
    return found


def test_skip_is_for_the_decoder_only() -> None:
    x = torch.randn(2, 1, 8, 12)
    net = build_plan(plan(network({"skip": {"norm": "instance", "mlp_ratio": 2}})))
    for stage, (out, skip) in zip(net.stages, stage_outputs(net, x), strict=True):
        fc1, _, fc2 = stage.skip[1]
        assert (fc1.out_channels, fc2.out_channels) == (8, 4)
        hidden = nn.functional.gelu(fc1(nn.functional.instance_norm(out)), approximate="none")
        torch.testing.assert_close(skip, fc2(hidden))
    first, second = stage_outputs(net, x)
    torch.testing.assert_close(net.stages[1](first[0])[0], second[0])


def test_skip_before_the_blocks() -> None:
    net = build_plan(plan(network({"skip": {"tap": "before_blocks"}}, {"depth": 0})))
    (out, skip), _ = stage_outputs(net, x := torch.randn(2, 1, 8, 12))
    torch.testing.assert_close(skip, net.stages[0].downsample(x))
    assert not torch.allclose(skip, out)


@pytest.mark.parametrize("last", [{}, {"depth": 0, "local": {"kind": "gsc"}}, {"depth": 2}])
def test_last_stage_must_be_used(last: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"^encoder\.stages\.1\.skip\.tap: 'before_blocks' on the"):
        plan(network({"skip": {"tap": "before_blocks"}}, last))


def test_norm_on_the_skip_is_checked() -> None:
    with pytest.raises(SpecError, match=r"^encoder\.stages\.1\.skip\.norm: 'group\(3\)' needs"):
        plan(network({}, {"skip": {"norm": "group(3)"}}))
    SkipSpec(norm="group(3)").check(StageShape(6, (1, 1)))
