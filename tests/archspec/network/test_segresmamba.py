"""The SegResMamba specs against the published code's own numbers.

Data: tests/golden/segresmamba/README.md.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import archspec
from archspec.cli.main import main
from archspec.network.build import build_plan
from archspec.network.published import LoadReport, key_table, renamed
from archspec.network.segnet import SegNet
from blocks.mixers.tom import TomMixer

FOLDER = Path(__file__).parents[2] / "golden" / "segresmamba"
SMALL = [f"encoder.stages.{i}.width={width}" for i, width in enumerate((8, 16, 32, 64))]
FOUR = "encoder.defaults.mixer.num_slices=4"
VARIANTS = {
    "a": ("segresmamba-released", []),
    "b": ("segresmamba", [FOUR]),
    "b_depth": ("segresmamba", []),
}
Arrays = dict[str, Any]


def read(name: str) -> Arrays:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in read("state_dict").items()}


@pytest.fixture(scope="module")
def load_small(weights: dict[str, Tensor]) -> Callable[[str], tuple[SegNet, LoadReport]]:
    """Return a function that builds the small network of a variant, with the official weights."""

    def make(variant: str) -> tuple[SegNet, LoadReport]:
        name, overrides = VARIANTS[variant]
        spec = archspec.load(name, overrides=[*SMALL, *overrides])
        net = archspec.build(spec, in_channels=4, num_classes=3, patch_size=(48, 48, 48))
        return net, archspec.load_official(net, weights)

    return make


@pytest.mark.parametrize("case", ["cube48", "box"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(
    variant: str, case: str, load_small: Callable[[str], tuple[SegNet, LoadReport]]
) -> None:
    golden = read(case)
    with torch.no_grad():
        logits = load_small(variant)[0](torch.from_numpy(golden["input"]))
    if variant == "b_depth":
        want = torch.from_numpy(golden["b_depth.output_s4"])
        torch.testing.assert_close(logits[..., ::4, ::4, ::4], want, rtol=0, atol=2e-4)
        assert logits.norm().item() == pytest.approx(float(golden["b_depth.output_norm"]), rel=1e-5)
    else:
        want = torch.from_numpy(golden[f"{variant}.output"])
        torch.testing.assert_close(logits, want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("case", ["cube48", "box"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_features_and_gradients(
    variant: str, case: str, load_small: Callable[[str], tuple[SegNet, LoadReport]]
) -> None:
    """Compare in float64: in float32, a ReLU at zero moves gradients of cube48/b by up to 4e-3."""
    golden = read(case)
    net = load_small(variant)[0].double()
    skips, blocks = [], []
    for stage in net.stages:
        stage.register_forward_hook(lambda _module, _inputs, outs: skips.append(outs[1]))
        stage.blocks.register_forward_hook(lambda _module, _inputs, out: blocks.append(out))
    logits = net(torch.from_numpy(golden["input"]).double())
    if variant != "b_depth":
        found = {"output": logits, "vit2": skips[2], "vit3": skips[3], "gsc3": blocks[3]}
        for name, value in found.items():
            want = torch.from_numpy(golden[f"{variant}.{name}"])
            torch.testing.assert_close(value.float(), want, rtol=1e-6, atol=1e-6)
    for name, values in (("vit_norm", skips), ("gsc_norm", blocks)):
        norms = [value.norm().item() for value in values]
        assert norms == pytest.approx(golden[f"{variant}.{name}"].tolist(), rel=1e-9)
    loss = logits.square().mean()
    assert loss.item() == pytest.approx(float(golden[f"{variant}.loss"]), rel=1e-9)
    loss.backward()
    check_gradients(net, golden["param_names"], golden[f"{variant}.grad_norm"])


def check_gradients(net: SegNet, names: Any, wanted: Any) -> None:
    """Compare norms of gradients; what has none in the official network has no place in ours."""
    grads = {key: parameter.grad for key, parameter in net.named_parameters()}
    table = key_table("segresmamba")
    for official, want in zip(map(str, names), wanted, strict=True):
        key = renamed(official, table)
        if math.isnan(want):
            assert key not in grads, official
            continue
        grad = grads.pop(key)
        assert grad is not None
        if want > 1e-6:
            assert grad.norm().item() == pytest.approx(want, rel=1e-6), official
        else:  # biases before an instance norm
            assert key.endswith("bias")
            assert grad.norm().item() < 1e-12, official
    assert not grads


def test_dead_parts_are_ignored(
    load_small: Callable[[str], tuple[SegNet, LoadReport]], weights: dict[str, Tensor]
) -> None:
    for variant, matched in (("a", 93), ("b", 193)):
        _, report = load_small(variant)
        assert report.complete
        assert (len(report.matched), len(report.ignored)) == (matched, 255 - matched)
        assert all(key.startswith(("segresnet.", "vit.gscs.")) for key in report.ignored)
        assert report.remark is not None
        assert ("ToM's start values" in report.remark) == (variant == "b")
    live = {key: value for key, value in weights.items() if "mamba_layer" not in key}
    spec = archspec.load("segresmamba", overrides=SMALL)
    net = archspec.build(spec, num_classes=3, patch_size=(48, 48, 48))
    with pytest.raises(archspec.SpecError, match=r"100 are missing, e\.g\. stages\.0\.blocks\.0"):
        archspec.load_official(net, live)


def test_convert_says_what_it_ignores(
    weights: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint, out = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save(weights, checkpoint)
    name = "segresmamba-released"
    small = [word for override in SMALL for word in ("-s", override)]
    words = ["convert", str(checkpoint), "--as", name, "-o", str(out), *small]
    monkeypatch.setattr(sys, "argv", ["archspec", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert not ended.value.code
    assert "note: 162 tensors ignored, e.g. vit.gscs.0.mamba_layer.norm.weight" in said
    assert "SegResNet's own encoder" in said
    assert "93 tensors of segresmamba-released, 4 input channels, 3 classes" in said


@pytest.mark.parametrize("variant", ["a", "b"])
def test_block_on_odd_sizes(
    variant: str, load_small: Callable[[str], tuple[SegNet, LoadReport]]
) -> None:
    golden = read("blocks")
    net, _ = load_small(variant)
    x = torch.from_numpy(golden["gsc_input"]).requires_grad_()
    out = net.stages[0].blocks[0](x)
    want = torch.from_numpy(golden[f"gsc_output_{variant}"])
    torch.testing.assert_close(out, want, rtol=0, atol=2e-5)
    out.square().mean().backward()
    assert x.grad is not None
    grad = torch.from_numpy(golden[f"gsc_input_grad_{variant}"]).float()
    assert (x.grad - grad).norm() <= 1e-3 * grad.norm()


@pytest.mark.parametrize("slices", [4, 6])
def test_core_mamba(slices: int, load_small: Callable[[str], tuple[SegNet, LoadReport]]) -> None:
    golden = read("blocks")
    net, _ = load_small("b")
    mixer = net.stages[0].blocks[0].mixer
    assert isinstance(mixer, TomMixer)
    mixer.num_slices = slices
    x = torch.from_numpy(golden["mamba_input"]).mT.reshape(2, 8, 4, 3, 4)
    want = torch.from_numpy(golden[f"mamba_output_ns{slices}"]).mT.reshape(x.shape)
    torch.testing.assert_close(mixer(x), want, rtol=0, atol=1e-5)


def test_tom_has_no_residual(load_small: Callable[[str], tuple[SegNet, LoadReport]]) -> None:
    golden = read("blocks")
    block = load_small("b")[0].stages[0].blocks[0]
    mixed = block.mixer(block.mixer_norm(torch.from_numpy(golden["tom_input"])))
    torch.testing.assert_close(mixed, torch.from_numpy(golden["tom_output"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "gmac"),
    [
        ("segresmamba-released", 70_471_972, 183.80),  # of 111,611,336 that the public code builds
        ("segresmamba", 72_032_932, 185.21),
    ],
)
def test_parameters_and_macs(name: str, params: int, gmac: float) -> None:
    counted = archspec.cost(name)
    assert counted.params == params
    assert round(counted.macs / 1e9, 2) == gmac


@pytest.mark.parametrize(
    ("patch", "depths"), [((48, 48, 48), [12, 6, 4, 2]), ((32, 48, 64), [8, 4, 2, 2])]
)
def test_slices_are_the_depth_that_the_mixer_sees(
    patch: tuple[int, ...], depths: list[int]
) -> None:
    planned = archspec.plan("segresmamba", patch_size=patch)
    assert [stage.mixed.grid[0] for stage in planned.stages] == depths
    with torch.device("meta"):
        net = build_plan(planned)
        seen: list[int] = []
        for stage in net.stages:
            stage.blocks[0].mixer.register_forward_pre_hook(
                lambda mixer, inputs: seen.append(mixer.orders_at(tuple(inputs[0].shape[2:]))[2])
            )
        net(torch.empty(1, 4, *patch))
    assert seen == depths


def test_one_voxel_is_refused() -> None:
    want = (
        "  encoder.stages.3.block.norm: 'instance' over a grid of one position has nothing to take "
        "statistics of; use layer or group1, a stage's grid with an axis of 3 or more (cmmb halves "
        "[2, 2, 2]), a smaller stride or a larger patch; nearest patch_size: [32, 32, 48]"
    )
    with pytest.raises(archspec.SpecError) as caught:
        archspec.plan("segresmamba", patch_size=(32, 32, 32), exact=True)
    assert str(caught.value).endswith(want)
    archspec.plan("segresmamba", patch_size=(32, 32, 48))
