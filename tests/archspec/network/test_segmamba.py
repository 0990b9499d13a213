"""The SegMamba specs: the released network's own numbers, and what the paper's readings change.

Data: tests/golden/segmamba/README.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.published import key_table, renamed
from archspec.network.resolve import resolve
from archspec.network.segnet import SegNet
from blocks.layers.fue import FUE

FILE = Path(__file__).parents[2] / "golden" / "segmamba" / "model_small.npz"
SMALL = ["decoder.bottleneck_width=40"] + [
    f"encoder.stages.{i}.{field}={value}"
    for i, (width, depth) in enumerate(zip((8, 16, 24, 32), (2, 1, 1, 1), strict=True))
    for field, value in (("width", width), ("depth", depth))
]
LIVE = [f"encoder.stages.{i}.mixer.num_slices=null" for i in range(4)]
SPECS = archspec.list_specs("segmamba*")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def build_small(golden: dict[str, Any]) -> Callable[..., SegNet]:
    """Return a function that builds the small network with the official weights."""
    weights = {
        name.removeprefix("sd/"): torch.from_numpy(value)
        for name, value in golden.items()
        if name.startswith("sd/")
    }

    def make(overrides: list[str]) -> SegNet:
        spec = archspec.load("segmamba-released", overrides=overrides)
        net = archspec.build(spec, in_channels=2, num_classes=3, patch_size=(32, 32, 32))
        report = archspec.load_official(net, weights)
        assert report.complete
        assert (len(report.matched), report.ignored, report.remark) == (216, (), None)
        return net

    return make


def record_skips(net: SegNet, into: list[Tensor]) -> None:
    for stage in net.stages:
        stage.register_forward_hook(lambda _module, _inputs, outs: into.append(outs[1]))


def test_cubic_against_the_released_code(
    golden: dict[str, Any], build_small: Callable[..., SegNet]
) -> None:
    net = build_small(SMALL + LIVE)
    skips: list[Tensor] = []
    record_skips(net, skips)
    logits = net(torch.from_numpy(golden["x_cubic"]))
    close = {"rtol": 0, "atol": 5e-5}
    torch.testing.assert_close(logits, torch.from_numpy(golden["y_cubic"]), **close)
    for i, skip in enumerate(skips):
        torch.testing.assert_close(skip, torch.from_numpy(golden[f"vit_out{i}_cubic"]), **close)
    check_loss_and_gradients(golden, net, logits, "cubic")
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    for name, value in golden.items():
        if name.startswith("grad_cubic/"):
            want = torch.from_numpy(value)
            found = grads[official_to_ours(name.removeprefix("grad_cubic/"))]
            assert found is not None
            assert (found - want).norm() <= 1e-3 * want.norm() + 1e-9, name


@pytest.mark.long
def test_noncubic_against_the_released_code(
    golden: dict[str, Any], build_small: Callable[..., SegNet]
) -> None:
    net = build_small(SMALL + LIVE)
    logits = net(torch.from_numpy(golden["x_noncubic"]))
    want = torch.from_numpy(golden["y_noncubic_stride2"])
    torch.testing.assert_close(logits[..., ::2, ::2, ::2], want, rtol=0, atol=5e-5)
    check_loss_and_gradients(golden, net, logits, "noncubic")


def check_loss_and_gradients(golden: dict[str, Any], net: SegNet, logits: Tensor, c: str) -> None:
    """Compare gradient norms where they are not mathematically zero; README of the data."""
    loss = logits.square().mean()
    assert loss.item() == pytest.approx(float(golden[f"loss_{c}"]), rel=1e-5)
    loss.backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    wanted = golden[f"gradnorm_{c}"]
    compared = 0
    for official, want in zip(golden["param_names"], wanted, strict=True):
        if want > 1e-8 * wanted.max():
            found = grads[official_to_ours(str(official))]
            assert found is not None
            assert found.norm().item() == pytest.approx(want, rel=1e-3), official
            compared += 1
    assert compared == 190


def official_to_ours(key: str) -> str:
    return renamed(key, key_table("segmamba-released"))


@pytest.mark.parametrize("patch", ["cubic", "noncubic"])
def test_forced_slices(
    golden: dict[str, Any], build_small: Callable[..., SegNet], patch: str
) -> None:
    with torch.no_grad():
        logits = build_small(SMALL)(torch.from_numpy(golden[f"x_{patch}"]))
    want = torch.from_numpy(golden[f"y_hardcoded_{patch}_stride2"])
    torch.testing.assert_close(logits[..., ::2, ::2, ::2], want, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    ("name", "in_channels", "num_classes", "params"),
    [
        ("segmamba-released", 4, 4, 67_416_196),  # the official module, counted
        ("segmamba-released", 1, 13, 67_363_213),
        ("segmamba-released", 1, 2, 67_362_674),  # "67.36 M" in tables of other papers
        ("segmamba", 4, 4, 67_219_636),
        ("segmamba-figure", 4, 4, 91_333_924),  # our reading only: no published count
    ],
)
def test_parameters(name: str, in_channels: int, num_classes: int, params: int) -> None:
    with torch.device("meta"):
        net = archspec.build(name, in_channels=in_channels, num_classes=num_classes)
    assert sum(p.numel() for p in net.parameters()) == params
    assert not list(net.buffers())


def test_macs() -> None:
    at_128 = archspec.cost("segmamba-released")
    assert round(at_128.macs / 1e9, 2) == 1468.69
    at_96 = archspec.cost(
        "segmamba-released", in_channels=1, num_classes=2, patch_size=(96, 96, 96)
    )
    mixers = sum(part.macs for path, part in at_96.by_path.items() if path.endswith(".mixer"))
    assert round((at_96.macs - mixers) / 1e9, 2) == 600.99
    product = archspec.cost("segmamba")
    last = sum(64**3 // 8**i * width**2 for i, width in enumerate((48, 96, 192, 384)))
    assert at_128.macs - product.macs == last  # the 1x1x1 convolutions that the product lacks


def test_fue_weighs_every_skip(shrunk: Callable[..., Plan]) -> None:
    for name, count in (("segmamba-released", 0), ("segmamba", 5), ("segmamba-figure", 5)):
        planned = shrunk(name)
        net, calls = build_plan(planned), []
        fue = net.decoder.fue
        assert isinstance(fue, FUE) == bool(count)
        fue.register_forward_hook(
            lambda _module, _inputs, out, calls=calls: calls.append(out.shape[1])
        )
        with torch.no_grad():
            net(torch.randn(1, 4, *planned.patch_size))
        if count:
            assert calls == [at.channels for at in planned.decoder_inputs]
            assert len(calls) == count


def test_segmamba_uses_live_slices() -> None:
    net = archspec.build("segmamba", patch_size=(48, 32, 32))
    orders = [
        stage.blocks[0].mixer.orders_at(at)
        for stage, at in zip(
            net.stages, [(24, 16, 16), (12, 8, 8), (6, 4, 4), (3, 2, 2)], strict=True
        )
    ]
    assert orders == [(1, -1, 24), (1, -1, 12), (1, -1, 6), (1, -1, 3)]
    with pytest.raises(archspec.SpecError, match=r"stages\.3\.mixer\.num_slices"):
        archspec.plan("segmamba-released", patch_size=(16, 32, 48), exact=True)


@pytest.fixture(scope="module")
def figure() -> SegNet:
    with torch.device("meta"):
        return archspec.build("segmamba-figure")


def test_figure_1_fue(figure: SegNet) -> None:
    assert isinstance(figure.decoder.fue, FUE)


def test_figure_2_gsc_multiplies(figure: SegNet) -> None:
    assert {type(stage.blocks[0][0]).__name__ for stage in figure.stages[:4]} == {"GSCProduct"}


def test_figure_3_block_is_gsc_tom_mlp(figure: SegNet) -> None:
    gsc, block = (part.to_empty(device="cpu").double() for part in figure.stages[0].blocks[1])
    for parameter in [*gsc.parameters(), *block.parameters()]:
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 48, 2, 3, 4, dtype=torch.float64)
    z = gsc(x)
    z = z + block.mixer(block.norm(z))
    z = z + block.ffn(block.ffn_norm(z))
    torch.testing.assert_close(figure.stages[0].blocks[1](x), z)
    assert [len(stage.blocks) for stage in figure.stages] == [2, 2, 2, 2, 0]
    assert all(isinstance(stage.local, nn.Identity) for stage in figure.stages)
    assert all(isinstance(stage.skip, nn.Identity) for stage in figure.stages)


def test_figure_4_depthwise_stem(figure: SegNet) -> None:
    stem = figure.stages[0].downsample[0]
    assert (stem.groups, stem.kernel_size, stem.stride) == (4, (7, 7, 7), (2, 2, 2))
    assert stem.padding == (3, 3, 3)


def test_figure_5_bottleneck_at_a_thirtysecond() -> None:
    planned = resolve("segmamba-figure")
    assert (planned.skips[-1].channels, planned.skips[-1].grid) == (768, (4, 4, 4))
    assert planned.total_stride == (32, 32, 32)


def test_figure_6_skips_before_the_blocks(shrunk: Callable[..., Plan]) -> None:
    planned = shrunk("segmamba-figure")
    net, skips, entered = build_plan(planned), [], []
    record_skips(net, skips)
    for stage in net.stages:
        stage.downsample.register_forward_hook(lambda _m, _i, out: entered.append(out))
    with torch.no_grad():
        net(torch.randn(1, 4, *planned.patch_size))
    assert len(skips) == 5
    assert all(skip is out for skip, out in zip(skips, entered, strict=True))
