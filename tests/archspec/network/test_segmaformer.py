"""SegMaFormer against a second forward pass, written here from facts in functional calls only.

Its own code holds no golden values: it runs only with mamba-ssm's CUDA kernels.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import archspec
from archspec import plan
from archspec.network.build import build_plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import StageShape
from blocks.ffn.mix import MixFFNSpec
from blocks.mixers.mamba import MambaMixerSpec
from blocks.wrappers.residual import ResidualBlockSpec

Weights = dict[str, Tensor]

STRIDES, HEADS = {7: 4, 3: 2, 1: 1}, 6
"""The stride of each kernel, axis by axis."""
PATCHES = [(96, 64), (32, 96, 32)]
"""Grids of the last stage: (3, 2) and (1, 3, 1)."""


def part(weights: Weights, prefix: str) -> Weights:
    found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    assert found, prefix
    return found


def convolve(x: Tensor, p: Weights, **options: Any) -> Tensor:
    function = F.conv2d if x.ndim == 4 else F.conv3d
    return function(x, p["weight"], p.get("bias"), **options)


def linear(x: Tensor, p: Weights) -> Tensor:
    return F.linear(x.movedim(1, -1), p["weight"], p.get("bias")).movedim(-1, 1)


def layer_norm(x: Tensor, p: Weights) -> Tensor:
    last = x.movedim(1, -1)
    return F.layer_norm(last, last.shape[-1:], p["weight"], p["bias"]).movedim(-1, 1)


def instance_norm(x: Tensor, p: Weights) -> Tensor:
    return F.instance_norm(x, weight=p["weight"], bias=p["bias"])


def rope(x: Tensor) -> Tensor:
    """Turn pairs of channels, taken as complex numbers; one chunk of channels per axis."""
    ndim = x.ndim - 2
    half = x.shape[1] // (2 * ndim)
    out = []
    for axis in range(ndim):
        real, imaginary = x[:, 2 * half * axis :][:, : 2 * half].split(half, dim=1)
        bands = 1e4 ** -(torch.arange(half, dtype=x.dtype) / half)
        places = torch.arange(x.shape[2 + axis], dtype=x.dtype)
        angle = bands[:, None] * places
        angle = angle.reshape(half, *[-1 if other == axis else 1 for other in range(ndim)])
        turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle), angle)
        out += [turned.real, turned.imag]
    return torch.cat([*out, x[:, 2 * half * ndim :]], dim=1)


def mamba(x: Tensor, p: Weights) -> Tensor:
    """Scan the tokens one after the other, in row-major order."""
    inner, z = F.linear(x.flatten(2).mT, p["in_proj.weight"]).chunk(2, dim=-1)
    b = part(p, "branches.0.")
    kernel = b["conv1d.weight"]
    past = F.pad(inner.mT, (kernel.shape[-1] - 1, 0))
    u = F.silu(F.conv1d(past, kernel, b["conv1d.bias"], groups=len(kernel)).mT)
    states, rank = b["A_log"].shape[1], b["dt_proj.weight"].shape[1]
    dt, B, C = F.linear(u, b["x_proj.weight"]).split([rank, states, states], dim=-1)
    dt = F.softplus(F.linear(dt, b["dt_proj.weight"], b["dt_proj.bias"]))
    state, out = torch.zeros(len(x), u.shape[-1], states, dtype=x.dtype), []
    for t in range(u.shape[1]):
        kept = torch.exp(-dt[:, t, :, None] * b["A_log"].exp()) * state
        state = kept + (dt * u)[:, t, :, None] * B[:, t, None, :]
        out.append((state * C[:, t, None, :]).sum(-1))
    y = (torch.stack(out, dim=1) + b["D"] * u) * F.silu(z)
    return F.linear(y, p["out_proj.weight"]).mT.reshape(x.shape)


def attention(x: Tensor, p: Weights) -> Tensor:
    tokens = x.flatten(2).mT
    q = F.linear(tokens, p["query.weight"])
    k, v = F.linear(tokens, p["key_value.weight"]).chunk(2, dim=-1)
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    mixed = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v
    out = F.linear(mixed.transpose(1, 2).flatten(2), p["proj.weight"], p["proj.bias"])
    return out.mT.reshape(x.shape)


def mix_ffn(x: Tensor, p: Weights) -> Tensor:
    wide = linear(x, part(p, "0."))
    local = convolve(wide, part(p, "1."), padding=1, groups=wide.shape[1])
    return linear(F.gelu(instance_norm(local, part(p, "2."))), part(p, "4."))


def block(x: Tensor, p: Weights, kind: str) -> Tensor:
    """A block of a Mamba stage (M), a hybrid stage (H) or an attention stage (A)."""
    z = layer_norm(x, part(p, "norm."))
    if kind == "A":
        x = x + attention(z, part(p, "mixer."))
        return x + mix_ffn(layer_norm(x, part(p, "ffn_norm.")), part(p, "ffn."))
    y = mamba(z, part(p, "mixer."))
    if kind == "H":
        local = convolve(z, part(p, "gate.local.0."), padding=1, groups=z.shape[1])
        local = F.gelu(instance_norm(local, part(p, "gate.local.1.")))
        local = convolve(local, part(p, "gate.local.3."))
        g = torch.sigmoid(linear(torch.cat([y, local], dim=1), part(p, "gate.weigh.")))
        y = g * y + (1 - g) * local
    ones = (1,) * (x.ndim - 2)
    x = x + p["mixer_scale.gamma"].view(-1, *ones) * linear(y, part(p, "project."))
    out = mix_ffn(layer_norm(x, part(p, "ffn_norm.")), part(p, "ffn."))
    return x + p["ffn_scale.gamma"].view(-1, *ones) * out


def interpolate(x: Tensor, grid: torch.Size) -> Tensor:
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return F.interpolate(x, size=grid, mode=mode, align_corners=False)


def forward(x: Tensor, weights: Weights, layout: str, depths: tuple[int, ...]) -> Tensor:
    patch, skips = x.shape[2:], []
    for level, kind in enumerate(layout):
        p = part(weights, f"stages.{level}.")
        kernel = p["downsample.0.weight"].shape[2:]
        stride, padding = [STRIDES[k] for k in kernel], [k // 2 for k in kernel]
        x = convolve(x, part(p, "downsample.0."), stride=stride, padding=padding)
        x = layer_norm(rope(x), part(p, "downsample.2."))
        for index in range(depths[level]):
            x = block(x, part(p, f"blocks.{index}."), kind)
        if level == 3:
            x = layer_norm(x, part(p, "norm."))
        skips.append(F.group_norm(x, 1, p["skip.weight"], p["skip.bias"]))
    p = part(weights, "decoder.")
    scales = []
    for level, skip in enumerate(skips):
        projected = linear(skip, part(p, f"projections.{level}.0."))
        scales.append(layer_norm(projected, part(p, f"projections.{level}.1.")))
    grid = skips[0].shape[2:]
    fused = convolve(torch.cat([interpolate(s, grid) for s in scales], dim=1), part(p, "fuse.0."))
    fused = F.relu(instance_norm(fused, part(p, "fuse.1.")))
    return interpolate(convolve(fused, part(p, "seg_layers.0.conv.")), patch)


def perturb(module: nn.Module) -> None:
    """Move every parameter, so that no norm, gate or scale stays at a value that hides it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def small(name: str, patch: tuple[int, ...]) -> SegNet:
    widths = (8, 14, 20, 24)  # 14 and 20 leave channels that no axis turns, and 2 time-step ranks
    overrides = [f"encoder.stages.{i}.width={width}" for i, width in enumerate(widths)]
    spec = load(name, overrides=[*overrides, "decoder.width=12"])
    net = build_plan(plan(spec, in_channels=2, num_classes=3, patch_size=patch)).double()
    perturb(net)
    return net


@pytest.mark.parametrize(
    ("name", "layout", "depths", "patch"),
    [
        ("segmaformer", "MHHA", (2, 2, 1, 1), PATCHES[0]),
        pytest.param("segmaformer", "MHHA", (2, 2, 1, 1), PATCHES[1], marks=pytest.mark.long),
        pytest.param("segmaformer-2m", "MMMA", (3, 3, 1, 1), PATCHES[0], marks=pytest.mark.long),
        pytest.param(
            "segmaformer-synapse", "MHHA", (2, 2, 1, 1), PATCHES[1], marks=pytest.mark.long
        ),
        pytest.param("segmaformer-acdc", "MHHA", (2, 2, 1, 1), (8, 32, 64), marks=pytest.mark.long),
        pytest.param("segmaformer-2m", "MMMA", (3, 3, 1, 1), PATCHES[1], marks=pytest.mark.long),
    ],
)
def test_network_equals_the_second_forward(
    name: str, layout: str, depths: tuple[int, ...], patch: tuple[int, ...]
) -> None:
    net = small(name, patch)
    weights = dict(net.named_parameters())
    x = torch.randn(2, 2, *patch, dtype=torch.float64)
    ours, second = net(x), forward(x, weights, layout, depths)
    assert isinstance(ours, Tensor)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, second, rtol=0, atol=1e-9)
    gradients = [
        torch.autograd.grad(out.sin().sum(), list(weights.values())) for out in (ours, second)
    ]
    scale = max(float(g.abs().max()) for g in gradients[1])
    for key, one, other in zip(weights, *gradients, strict=True):
        assert torch.isfinite(one).all(), key
        assert (one - other).abs().max() < 1e-10 * scale, key


@pytest.mark.parametrize("grid", [(5, 3), (3, 5, 2)])
@pytest.mark.parametrize("kind", ["M", "H"])
def test_block_equals_the_second_forward(kind: str, grid: tuple[int, ...]) -> None:
    at = StageShape(20, grid)
    spec = ResidualBlockSpec(gate="conv" if kind == "H" else "none", project=True, layer_scale=1e-4)
    built = spec.build(
        at,
        mixer=MambaMixerSpec(d_state=4, d_conv=3).build(at),
        ffn=MixFFNSpec(norm="instance_affine").build(at),
    )
    perturb(built)
    x = torch.randn(2, 20, *grid)
    want = block(x, dict(built.named_parameters()), kind)
    torch.testing.assert_close(built(x), want, rtol=0, atol=1e-5)
    assert (want - x).abs().max() > 0.1


def test_size_and_cost() -> None:
    """At 4x128^3, 3 classes. A calculator that is not this project's gives the same parameters.

    It gives 13.61 and 15.08 GMAC, with 3 L D N for each scan, a third of what convention v1 counts.
    """
    counted, fit = archspec.cost("segmaformer"), archspec.cost("segmaformer-2m")
    assert counted.params == 1_913_025
    assert counted.macs / 1e9 == pytest.approx(13.48, abs=0.005)
    assert fit.params == 2_014_617
    assert fit.macs / 1e9 == pytest.approx(14.65, abs=0.005)
    for cost, total in ((counted, 13.61), (fit, 15.08)):
        assert (cost.macs + cost.scan_flops / 3) / 1e9 == pytest.approx(total, abs=0.005)
    assert sum(p.numel() for p in archspec.build("segmaformer").parameters()) == counted.params


@pytest.mark.parametrize(
    ("name", "params"), [("segmaformer-synapse", 1_831_552), ("segmaformer-acdc", 1_822_886)]
)
def test_size_of_the_repositorys_other_configurations(name: str, params: int) -> None:
    assert archspec.cost(name).params == params


def variant(layout: str, *, bare: bool = False, **per_stage: tuple[int, ...]) -> ArchSpec:
    """Return segmaformer with another layout; `bare` leaves out projections and layer scales."""
    overrides = []
    for stage, kind in enumerate(layout):
        at = f"encoder.stages.{stage}"
        if kind == "A":
            heads = (1, 2, 4, 6)[stage]
            mixer = f"{{kind: attention, num_heads: {heads}, qkv_bias: false}}"
            overrides += [f"{at}.mixer={mixer}"]
        blocks = "project: false, layer_scale: null" if bare or kind == "A" else "project: true"
        gate = "conv" if kind == "H" else "none"
        overrides += [f"{at}.block={{kind: residual, gate: {gate}, {blocks}}}"]
        for field, values in per_stage.items():
            if kind != "A" or not field.startswith("mixer"):
                overrides += [f"{at}.{field.replace('__', '.')}={values[stage]}"]
    return load("segmaformer", overrides=overrides)


FOURS, MAMBA = (4, 4, 4, 4), {"mixer__d_state": (16,) * 4, "mixer__d_conv": (4,) * 4}
VARIANTS = {
    "as published": (variant("MHHA"), 1_913_025),
    "hybrid stages": (variant("HHHA"), 1_922_961),
    "no hybrid stage": (variant("MMMA"), 1_852_401),
    "two stages of attention": (variant("MMAA"), 1_849_329),
    "A1": (variant("HHHA", bare=True, depth=(3, 3, 1, 1)), 2_020_131),
    "A2": (
        variant("MMMA", depth=(3, 3, 1, 1), mixer__expand=(2,) * 4, **MAMBA),
        2_014_617,
    ),
    "A3": (variant("MMMA", depth=(4, 2, 1, 1), ffn__ratio=FOURS), 2_007_057),
    "B1": (variant("MHHA", ffn__ratio=FOURS), 2_014_113),
    "B2": (variant("HHHA", ffn__ratio=FOURS), 2_024_049),
    "B3": (variant("MMMA", ffn__ratio=FOURS, mixer__expand=(2,) * 4, **MAMBA), 2_004_489),
    "C1": (
        variant("MMMA", bare=True, mixer__expand=(1,) * 4, mixer__reduction=(4, 2, 1, 1)),
        2_026_977,
    ),
}
"""Counts of an analytic calculator that is not this project's, for variants of the network."""


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_of_variants(name: str) -> None:
    spec, want = VARIANTS[name]
    with torch.device("meta"):
        net = build_plan(plan(spec))
    assert sum(p.numel() for p in net.parameters()) == want
