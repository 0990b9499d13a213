"""U-Mamba against a second forward, functional, written down from the public code.

Source: github.com/bowang-lab/U-Mamba@5307397, umamba/nnunetv2/nets/UMambaBot_3d.py and
UMambaEnc_3d.py, for nnU-Net's default plan of a large isotropic patch.
"""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import archspec
from archspec.network.plan import plan
from blocks.base import SpecError

Weights = dict[str, Tensor]

WIDTHS = (32, 64, 128, 256, 320, 320)
BLOCKS = (2, 2, 2, 1, 1, 1)
"""Of two per stage, the code leaves one in the coarser half."""
DECODER_BLOCKS = (1, 1, 2, 2, 2)
"""Fine to coarse; of two per level, the code leaves one in the finer ones."""
STRIDES = (1, 1, 2, 1, 2, 1, 1)
"""Of the stem and the stages, in the small networks."""
SMALL = [
    *(f"encoder.stages.{i}.width={w}" for i, w in enumerate((4, 4, 6, 8, 10, 12, 12))),
    *(f"encoder.stages.{i}.downsample.stride={s}" for i, s in enumerate(STRIDES)),
    "in_channels=2",
    "num_classes=3",
    "deep_supervision.heads=3",
]
HEADS = {0: "0.conv", 1: "1", 3: "2"}
"""By level: those whose grid differs from the level above."""


def parameters_by_hand(*, encoder: bool, channel_tokens: bool) -> int:
    """Count what the public code builds for 4 channels and classes at 128^3."""

    def res(inp: int, out: int) -> int:  # two biased convolutions, two norms, a biased 1x1
        return 27 * inp * out + out + 27 * out**2 + out + 4 * out + inp * out + out

    def basic(width: int) -> int:
        return 2 * (27 * width**2 + width) + 4 * width

    def mamba(dim: int, state: int = 16, kernel: int = 4) -> int:
        inner, rank = 2 * dim, math.ceil(dim / 16)
        projections = 2 * dim * inner + inner * (rank + 2 * state) + rank * inner + inner * dim
        return 2 * dim + projections + inner * (kernel + 1) + inner + inner * state + inner

    total = res(4, 32) + (BLOCKS[0] - 1) * basic(32)
    widths = (32, *WIDTHS)
    for stage, (inp, out, blocks) in enumerate(zip(widths, WIDTHS, BLOCKS, strict=False)):
        total += res(inp, out) + (blocks - 1) * basic(out)
        positions = (128 // 2**stage) ** 3
        if encoder or stage == 5:
            total += mamba(positions if channel_tokens and positions <= out else out)
    for fine, coarse, blocks in zip(WIDTHS, WIDTHS[1:], DECODER_BLOCKS, strict=False):
        total += coarse * fine + fine + res(2 * fine, fine) + (blocks - 1) * basic(fine)
        total += 4 * fine + 4
    return total


@pytest.mark.parametrize("name", ["umamba-bot", "umamba-enc"])
def test_parameters_are_those_of_the_public_code(name: str) -> None:
    encoder = name == "umamba-enc"
    count = archspec.cost(name).params
    assert count == parameters_by_hand(encoder=encoder, channel_tokens=False)
    claims = {claim.value for claim in archspec.load(name).claims if claim.what == "parameters"}
    assert claims == {parameters_by_hand(encoder=encoder, channel_tokens=encoder)}


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    mean, var = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, correction=0)
    scale, shift = (w[f"{name}.{part}"][:, None, None, None] for part in ("weight", "bias"))
    return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift


def conv(x: Tensor, w: Weights, name: str, stride: int = 1) -> Tensor:
    kernel = w[f"{name}.weight"]
    return F.conv3d(x, kernel, w[f"{name}.bias"], stride=stride, padding=kernel.shape[-1] // 2)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.01 * x)


def res(x: Tensor, w: Weights, at: str, stride: int = 1) -> Tensor:
    y = leaky(norm(conv(x, w, f"{at}.conv1", stride), w, f"{at}.norm1"))
    y = norm(conv(y, w, f"{at}.conv2"), w, f"{at}.norm2")
    return leaky(y + conv(x, w, f"{at}.shortcut.conv", stride))


def basic(x: Tensor, w: Weights, at: str, first: str, second: str) -> Tensor:
    y = leaky(norm(conv(x, w, f"{at}.{first}"), w, f"{at}.norm1"))
    return leaky(norm(conv(y, w, f"{at}.{second}"), w, f"{at}.norm2") + x)


def mamba_layer(x: Tensor, w: Weights, at: str) -> Tensor:
    """Return Mamba of the layer norm, position by position; there is no residual."""
    tokens = x.flatten(2).mT
    normed = F.layer_norm(tokens, (x.shape[1],), w[f"{at}.norm.weight"], w[f"{at}.norm.bias"])
    inner, z = (normed @ w[f"{at}.mix.in_proj.weight"].mT).chunk(2, dim=-1)
    b = f"{at}.mix.branches.0"
    kernel = w[f"{b}.conv1d.weight"]
    padded = F.pad(inner.mT, (kernel.shape[-1] - 1, 0))
    u = F.silu(F.conv1d(padded, kernel, w[f"{b}.conv1d.bias"], groups=len(kernel))).mT
    A = -w[f"{b}.A_log"].exp()
    rank = w[f"{b}.dt_proj.weight"].shape[1]
    dt, B, C = (u @ w[f"{b}.x_proj.weight"].mT).split([rank, *A.shape[1:], *A.shape[1:]], dim=-1)
    delta = F.softplus(dt @ w[f"{b}.dt_proj.weight"].mT + w[f"{b}.dt_proj.bias"])
    state, outputs = x.new_zeros(len(x), *A.shape), []
    for t in range(tokens.shape[1]):
        step = delta[:, t, :, None]
        state = torch.exp(step * A) * state + step * B[:, t, None] * u[:, t, :, None]
        outputs.append((state * C[:, t, None]).sum(-1) + w[f"{b}.D"] * u[:, t])
    y = torch.stack(outputs, dim=1) * F.silu(z)
    return (y @ w[f"{at}.mix.out_proj.weight"].mT).mT.reshape(x.shape)


def outputs_by_hand(x: Tensor, w: Weights, *, encoder: bool) -> Iterator[Tensor]:
    """Yield logits, coarse to fine."""
    skips = []
    for stage, blocks in enumerate((BLOCKS[0], *BLOCKS)):
        x = res(x, w, f"stages.{stage}.downsample", stride=STRIDES[stage])
        for block in range(blocks - 1):
            x = basic(x, w, f"stages.{stage}.blocks.{block}", "conv", "mixer.0")
        if stage == 6 or (encoder and stage):
            x = mamba_layer(x, w, f"stages.{stage}.post")
        if stage:
            skips.append(x)
    x = skips.pop()
    for level in reversed(range(5)):
        for axis in (2, 3, 4):
            x = x.repeat_interleave(STRIDES[level + 2], axis)
        up = conv(x, w, f"decoder.ups.{level}.conv")
        x, at = torch.cat([up, skips.pop()], dim=1), f"decoder.blocks.{level}"
        units = DECODER_BLOCKS[level]
        x = res(x, w, f"{at}.0" if units > 1 else at)
        for unit in range(1, units):
            x = basic(x, w, f"{at}.{unit}", "conv1", "conv2")
        if level in HEADS:
            yield conv(x, w, f"decoder.seg_layers.{HEADS[level]}")


@pytest.mark.parametrize("name", ["umamba-bot", "umamba-enc"])
def test_outputs_are_those_of_the_public_code(name: str) -> None:
    spec = archspec.load(name, overrides=SMALL)
    net = archspec.build(spec, patch_size=(4, 8, 8)).eval().double()
    with torch.no_grad():
        for parameter in net.parameters():  # biases and norms start alike
            parameter.add_(0.1 * torch.randn_like(parameter))
        net.decoder.deep_supervision = True
        x = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64)
        found = net(x)
        wanted = list(outputs_by_hand(x, dict(net.state_dict()), encoder=name == "umamba-enc"))
    for one, want in zip(found, reversed(wanted), strict=True):
        assert float(want.std()) > 0.01
        torch.testing.assert_close(one, want, rtol=0, atol=1e-8)


def test_a_stem_has_no_skip() -> None:
    planned = plan(archspec.load("umamba-bot"))
    assert [at.channels for at in planned.skips] == list(WIDTHS)
    assert len(planned.stages) == 7
    for given, message in (
        ("encoder.stages.6.skip.tap=none", "skip.tap: 'none' on the last stage leaves it without"),
        ("encoder.stages.0.skip={tap: none, norm: layer}", "skip.tap: 'none' leaves norm and mlp_"),
        ("decoder.num_convs=2", "decoder.num_units: goes with residual units"),
        ("encoder.stages.2.downsample.kernel_size=1", "downsample.kernel_size: .* skips positions"),
    ):
        with pytest.raises(SpecError, match=message):
            plan(archspec.load("umamba-bot", overrides=[given]))


def test_a_decoder_gets_something() -> None:
    given = [f"encoder.stages.{index}.skip.tap=none" for index in range(7)]
    with pytest.raises(SpecError, match=r"skip.tap: 'none' on the last stage leaves it without"):
        plan(archspec.load("umamba-bot", overrides=[*given, "decoder={kind: sum}"]))


def test_fitting_keeps_what_mixes_behind_a_stage() -> None:
    """A last stage that no longer strides is no repetition of the one before, which lacks Mamba."""
    found = archspec.describe("umamba-bot", patch_size=(64, 64, 64), spacing=(1.0, 1.0, 1.0))
    assert found.stages[-1].mixer.endswith("mamba")
    assert all("mamba" not in stage.mixer for stage in found.stages[:-1])
    enc = archspec.describe("umamba-enc", patch_size=(64, 64, 64), spacing=(1.0, 1.0, 1.0))
    assert len(enc.stages) < len(found.stages) <= 7
