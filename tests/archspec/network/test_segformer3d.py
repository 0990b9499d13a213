"""segformer3d against numbers from the official code; data: tests/golden/segformer3d/README.md."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec import plan
from archspec.network.build import build_plan
from archspec.network.published import key_table
from archspec.network.segnet import SegNet

FOLDER = Path(__file__).parents[2] / "golden" / "segformer3d"


def arrays(name: str) -> dict[str, Any]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as data:
        return dict(data)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "meta.json").read_text())
    return found


def small(config: dict[str, Any], *overrides: str) -> SegNet:
    """Return the bundled spec at the fixture's widths, in evaluation mode."""
    sizes = config["config"]
    spec = archspec.load(
        "segformer3d",
        overrides=[
            *(
                f"encoder.stages.{stage}.{field}={sizes[key][stage]}"
                for field, key in (
                    ("width", "embed_dims"),
                    ("depth", "depths"),
                    ("mixer.num_heads", "num_heads"),
                    ("mixer.reduction", "sr_ratios"),
                )
                for stage in range(4)
            ),
            f"decoder.width={sizes['decoder_head_embedding_dim']}",
            *overrides,
        ],
    )
    # A patch of 32 leaves stage 4 one position, which the plan refuses: its batch norm could not
    # train at batch 1. A network takes any size that its strides divide.
    net = build_plan(plan(spec, in_channels=2, num_classes=3, patch_size=(64, 64, 64)))
    state = {name: torch.from_numpy(value) for name, value in arrays("state_dict").items()}
    report = archspec.load_official(net, state)
    assert report.complete
    assert not report.ignored
    assert "April 2024" in (report.remark or "")
    return net.eval()


@pytest.fixture(scope="module")
def net(config: dict[str, Any]) -> SegNet:
    return small(config)


def forward(net: SegNet, x: Tensor) -> Tensor:
    """Run the network past its own check of the input's size.

    A patch of 48 gives stage 3 an odd grid, which a plan refuses; the layers round it up, as the
    official ones do.
    """
    skips, level = [], x
    for stage in net.stages:
        level, skip = stage(level)
        skips.append(skip)
    logits = net.decoder(skips, tuple(x.shape[2:]))
    assert isinstance(logits, Tensor)
    return logits


def our_name(official: str) -> str:
    matches = (
        (re.fullmatch(pattern, official), ours)
        for pattern, ours in key_table("segformer3d").keys.items()
    )
    return next(match.expand(ours) for match, ours in matches if match)


def test_official_weights_fit(net: SegNet, config: dict[str, Any]) -> None:
    assert sum(p.numel() for p in net.parameters()) == config["n_params"]
    assert len(net.state_dict()) == len(arrays("state_dict"))


@pytest.mark.parametrize("size", [32, 48])
def test_logits(net: SegNet, size: int) -> None:
    case = arrays(f"case_{size}")
    with torch.no_grad():
        logits = forward(net, torch.from_numpy(case["input"]))
    torch.testing.assert_close(logits, torch.from_numpy(case["logits"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [32, 48])
def test_logits_of_the_first_release(config: dict[str, Any], size: int) -> None:
    case = arrays(f"case_{size}")
    first = small(config, "encoder.defaults.mixer.scale=num_heads")
    with torch.no_grad():
        logits = forward(first, torch.from_numpy(case["input"]))[:, :, ::3, ::3, ::3]
    want = torch.from_numpy(case["logits_legacy_scale_sub"])
    torch.testing.assert_close(logits, want, rtol=0, atol=1e-5)
    now = torch.from_numpy(case["logits"])[:, :, ::3, ::3, ::3]
    assert (logits - now).abs().max() > 0.1


def test_encoder_outputs(net: SegNet) -> None:
    case = arrays("case_32")
    x = torch.from_numpy(case["input"])
    with torch.no_grad():
        for level, stage in enumerate(net.stages, start=1):
            x, skip = stage(x)
            want = torch.from_numpy(case[f"c{level}"])
            torch.testing.assert_close(skip, want, rtol=0, atol=1e-5)


def official_layout(net: SegNet) -> None:
    """Give batch norms of the mix FFN the memory layouts that the official code gives them."""

    def rows(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        return out.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).view(out.shape)

    for module in net.stages.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.register_forward_pre_hook(lambda _module, inputs: (inputs[0].contiguous(),))
            module.register_forward_hook(rows)


def batch_norm_errs() -> bool:
    """Say whether this PyTorch has the error that the stored gradients contain (see README)."""
    norm, x = nn.BatchNorm3d(8).double().eval(), torch.randn(1, 8, 2, 2, 2, dtype=torch.float64)
    gradient = torch.randn(1, 8, 8, dtype=torch.float64).transpose(1, 2).view(x.shape)
    given = x.requires_grad_()
    (got,) = torch.autograd.grad(norm(given), given, gradient)
    return not torch.allclose(got, gradient / (1 + norm.eps) ** 0.5)


SMALL_FIRST = [32, pytest.param(48, marks=pytest.mark.long)]


@pytest.mark.parametrize("size", SMALL_FIRST)
def test_loss_and_stored_gradients(config: dict[str, Any], size: int) -> None:
    """The stored gradients hold an error of PyTorch's: in the same layout, ours hold the same."""
    if not batch_norm_errs():
        pytest.skip("this PyTorch gives right gradients where the stored ones are wrong")
    net, case = small(config).double(), arrays(f"case_{size}")
    official_layout(net)
    loss = forward(net, torch.from_numpy(case["input"]).double()).square().mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(case["loss"]), rel=1e-9)
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    norms = dict(zip(case["grad_names"].tolist(), case["grad_norms"].tolist(), strict=True))
    assert gradients.keys() == {our_name(name) for name in norms}
    for name, norm in norms.items():
        got = float(gradients[our_name(name)].norm())
        assert got == pytest.approx(norm, rel=1e-6, abs=1e-12), name
    samples = [name for name in case if name.startswith("grad/")]
    assert len(samples) == (8 if size == 32 else 0)
    for name in samples:
        got = gradients[our_name(name.removeprefix("grad/"))].float()
        torch.testing.assert_close(got, torch.from_numpy(case[name]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", SMALL_FIRST)
def test_gradients_are_derivatives(config: dict[str, Any], size: int) -> None:
    """Each parameter's gradient, in one direction, against differences of the loss."""
    net, case = small(config).double(), arrays(f"case_{size}")
    x = torch.from_numpy(case["input"]).double()
    loss = forward(net, x).square().mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(case["loss"]), rel=1e-9)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        step = 1e-4 * torch.nn.functional.normalize(torch.randn_like(parameter), dim=None)
        ends = []
        with torch.no_grad():
            for move in (step, -2 * step):
                parameter.add_(move)
                ends.append(float(forward(net, x).square().mean()))
            parameter.add_(step)
        want = (ends[0] - ends[1]) / 2
        got = float((parameter.grad * step).sum())
        assert got == pytest.approx(want, rel=1e-4, abs=1e-11), name


def test_every_parameter_learns(config: dict[str, Any]) -> None:
    """Every gradient is non-zero, but for biases that a norm over the positions takes out again.

    Which these are is measured: moving one leaves the output of training as it is.
    """
    net = small(config).double().train()
    x = torch.randn(2, 2, 64, 64, 64, dtype=torch.float64)
    logits = net(x)
    logits.square().mean().backward()
    dead = []
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        if parameter.grad.abs().max() < 1e-9:
            dead.append(name)
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter))
    with torch.no_grad():
        torch.testing.assert_close(net(x), logits)
        bias = net.stages[0].downsample[0].bias
        bias.add_(torch.randn_like(bias))
        assert (net(x) - logits).abs().max() > 0.01
    assert all(name.endswith(".bias") for name in dead)
    depthwise = sum(config["config"]["depths"])  # their outputs feed a batch norm
    projections = 4  # layer norms of the decoder, carried unchanged to the batch norm of the fuse
    assert len(dead) == depthwise + projections


def test_published_size_and_cost() -> None:
    """4,525,251 parameters and 31.09 GFLOP of torch's counter: the official code, run at 4x128^3.

    In GMAC: convolutions 10.90, linear layers 1.79, attention products 2.86.
    """
    counted = archspec.cost("segformer3d", in_channels=4, num_classes=3, patch_size=(128,) * 3)
    assert counted.params == 4_525_251
    assert counted.macs / 1e9 == pytest.approx(15.55, abs=0.005)
    assert counted.flops / 1e9 == pytest.approx(31.09, abs=0.005)
    with torch.device("meta"):
        net = archspec.build("segformer3d")
    shares = {
        kind: sum(counted.by_path[n].macs for n, m in net.named_modules() if isinstance(m, kind))
        for kind in (nn.Conv3d, nn.Linear)
    }
    assert shares[nn.Conv3d] / 1e9 == pytest.approx(10.90, abs=0.005)
    assert shares[nn.Linear] / 1e9 == pytest.approx(1.79, abs=0.005)
    attention = counted.macs - sum(shares.values())
    assert attention / 1e9 == pytest.approx(2.86, abs=0.005)
    queries, keys, widths = [32**3, 16**3, 8**3, 4**3], [8**3, 8**3, 8**3, 4**3], [32, 64, 160, 256]
    products = zip(queries, keys, widths, strict=True)
    assert attention == sum(2 * 2 * q * k * c for q, k, c in products)  # 2 blocks, QK and AV


def test_start_values() -> None:
    net = archspec.build("segformer3d")
    net.requires_grad_(False)
    fuse, embed = net.decoder.fuse[0].weight, net.stages[0].downsample[0].weight
    assert float(net.stages[2].blocks[0].mixer.query.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(fuse.std()) == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    assert float(embed.std()) == pytest.approx((2 / (343 * 32)) ** 0.5, rel=0.05)
    depthwise = net.stages[3].blocks[0].ffn[1].weight
    assert float(depthwise.std()) == pytest.approx((2 / 27) ** 0.5, rel=0.05)
    ones = [n for n, p in net.named_parameters() if p.ndim == 1 and n.endswith("weight")]
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (1 if name in ones else 0)).all(), name
