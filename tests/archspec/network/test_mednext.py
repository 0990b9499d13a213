"""MedNeXt composed of blocks, against MONAI's classes with the same weights."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from monai.networks.blocks.mednext_block import MedNeXtBlock
from monai.networks.nets.mednext import MedNeXt, MedNeXtS
from torch import Tensor, nn

import archspec
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError, StageShape
from blocks.ffn.mlp import MLPSpec
from blocks.mixers.conv import ConvMixerSpec
from blocks.wrappers.convnext import ConvNeXtBlockSpec

_LEAVES = {"conv1": 0, "norm": 1, "conv2": 2, "global_resp": 3, "conv3": 4, "res_conv": 5}


def pairs(levels: int) -> Iterator[tuple[str, str]]:
    """Yield MONAI's prefixes and ours."""
    yield "stem.", "stages.0.downsample."
    for level in range(levels):
        yield f"enc_stages.{level}.", f"stages.{level}.blocks."
        yield f"down_blocks.{level}.", f"stages.{level + 1}.downsample."
        yield f"up_blocks.{level}.", f"decoder.projections.{levels - 1 - level}."
        yield f"dec_stages.{level}.", f"decoder.blocks.{levels - 1 - level}."
    yield "bottleneck.", f"stages.{levels}.blocks."
    yield "out_0.", "decoder.seg_layers.0."


def place(key: str) -> tuple[Any, ...]:
    """Return where MONAI's weight stands in our order: blocks, parts of a block, gamma first."""
    part = next((n for name, n in _LEAVES.items() if name in key), 0)
    block = int(key.split(".")[2]) if key.startswith(("enc_", "dec_")) else 0
    block = int(key.split(".")[1]) if key.startswith("bottleneck") else block
    return block, part, "bias" in key or "beta" in key


def mapped(theirs: nn.Module, ours: nn.Module, levels: int) -> dict[str, Tensor]:
    found, wanted = theirs.state_dict(), ours.state_dict()
    weights = {}
    for prefix, our_prefix in pairs(levels):
        keys = sorted((key for key in found if key.startswith(prefix)), key=place)
        our_keys = [key for key in wanted if key.startswith(our_prefix)]
        for key, our_key in zip(keys, our_keys, strict=True):
            given = found[key]
            # MONAI's heads are transposed convolutions of kernel 1
            is_head = key == "out_0.conv_out.weight"
            weights[our_key] = given.transpose(0, 1) if is_head else given
    assert len(weights) == len(found) == len(wanted)
    return weights


def disturbed(net: nn.Module) -> nn.Module:
    """Return the network with biases, norms and GRN that differ from layer to layer too."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1 or "global_resp" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def difference(theirs: nn.Module, spec: ArchSpec, x: Tensor, levels: int) -> float:
    disturbed(theirs)
    ours = archspec.build(spec, patch_size=tuple(x.shape[2:])).eval()
    ours.load_state_dict(mapped(theirs, ours, levels))
    with torch.no_grad():
        want, found = theirs(x), ours(x)
    assert float(want.std()) > 0.01
    return float((found - want).abs().max())


def test_the_bundled_composition_equals_monai() -> None:
    theirs = MedNeXtS(spatial_dims=3, in_channels=4, out_channels=4, kernel_size=3)
    spec = archspec.load("mednext-s-blocks")
    count = sum(p.numel() for p in theirs.parameters())
    assert count == archspec.cost(spec).params == 5_551_076
    assert difference(theirs, spec, torch.randn(1, 4, 32, 32, 32), levels=4) < 1e-4


def test_other_ratios_kernels_and_grn_equal_monai(ndim: int) -> None:
    theirs = MedNeXt(
        spatial_dims=ndim,
        init_filters=4,
        in_channels=2,
        out_channels=3,
        encoder_expansion_ratio=(2, 3),
        decoder_expansion_ratio=(4, 1),
        bottleneck_expansion_ratio=5,
        kernel_size=5,
        use_residual_connection=True,
        blocks_down=(1, 2),
        blocks_bottleneck=1,
        blocks_up=(3, 1),
    )
    down = {"kind": "mednext", "kernel_size": 5, "norm": "instance_affine"}
    stage = {
        "block": {"kind": "convnext", "norm": "instance_affine"},
        "mixer": {"kind": "conv", "kernel_size": 5, "groups": "in", "act": "none"},
    }
    tree = {
        "name": "small",
        "in_channels": 2,
        "num_classes": 3,
        "patch_size": [8, 12, 16][:ndim],
        "encoder": {
            "defaults": stage,
            "stages": [
                {"width": 4, "depth": 1, "downsample": {"kernel_size": 1, "stride": 1}}
                | {"ffn": {"kind": "mlp", "ratio": 2}},
                {"width": 8, "depth": 2, "downsample": {**down, "ratio": 2}}
                | {"ffn": {"kind": "mlp", "ratio": 3}},
                {"width": 16, "depth": 1, "downsample": {**down, "ratio": 3}}
                | {"ffn": {"kind": "mlp", "ratio": 5}},
            ],
        },
        "decoder": {
            "kind": "sum",
            "up": "mednext",
            "block": "mednext",
            "num_blocks": [1, 3],
            "ratio": [1, 4],
            "kernel_size": 5,
            "norm": "instance_affine",
        },
    }
    x = torch.randn(2, 2, *tree["patch_size"])  # type: ignore[misc]
    assert difference(theirs, archspec.load(tree), x, levels=2) < 1e-4


@pytest.mark.parametrize("grid", [(4, 6), (3, 4, 5)])
def test_global_response_normalisation_equals_monai(grid: tuple[int, ...]) -> None:
    dim, at = f"{len(grid)}d", StageShape(6, grid)
    theirs = disturbed(MedNeXtBlock(6, 6, 3, kernel_size=3, dim=dim, global_resp_norm=True))
    ours = ConvNeXtBlockSpec(norm="group(6)").build(
        at,
        mixer=ConvMixerSpec(groups="in", act="none").build(at),
        ffn=MLPSpec(ratio=3.0, grn=True).build(at),
    )
    weights = theirs.state_dict()
    keys = sorted(weights, key=place)
    ours.load_state_dict(dict(zip(ours.state_dict(), [weights[key] for key in keys], strict=True)))
    x = torch.randn(2, 6, *grid)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
    started = MLPSpec(grn=True).build(at)
    plain = MLPSpec().build(at)
    plain.load_state_dict(
        {
            key.replace("3.", "2."): value
            for key, value in started.state_dict().items()
            if key not in ("2.gamma", "2.beta")
        }
    )
    assert torch.equal(started(x), plain(x)), "it starts as the identity"


@pytest.mark.parametrize("grid", [(7, 9), (5, 7, 6)])
@pytest.mark.parametrize("kernel", [3, 9])
def test_dilated_and_depthwise_convolutions(grid: tuple[int, ...], kernel: int) -> None:
    """Positions at the dilation's distance, one channel at a time; the grid stays."""
    at = StageShape(3, grid)
    mixer = ConvMixerSpec(kernel_size=kernel, dilation=2, groups="in", act="none", bias=False)
    mixer.check(at)
    (built, _) = mixer.build(at)
    x = torch.zeros(1, 3, *grid)
    middle = tuple(n // 2 for n in grid)
    x[(0, 1, *middle)] = 1.0
    out = built(x)
    assert out.shape == x.shape
    assert sum(p.numel() for p in built.parameters()) == 3 * kernel ** len(grid)
    assert mixer.largest(at) == 3 * kernel ** len(grid)
    touched = out[0].nonzero()
    assert set(touched[:, 0].tolist()) == {1}
    assert all((touched[:, 1:] - torch.tensor(middle)).flatten() % 2 == 0)
    reach = [min(kernel // 2, m // 2, (n - 1 - m) // 2) for m, n in zip(middle, grid, strict=True)]
    assert len(touched) == int(torch.tensor([2 * r + 1 for r in reach]).prod())


def test_refusals() -> None:
    overrides = "decoder={kind: sum, norm: layer, %s}"
    for given, message in (
        ("grn: true", "decoder.grn: goes with up: mednext or block: mednext; leave it out"),
        ("ratio: [2, 3, 2, 2]", "decoder.ratio: goes with up"),
        ("up: mednext, ratio: [2, 3]", "decoder.ratio: 2 entries, but the decoder has 4 levels"),
    ):
        spec = archspec.load("mednext-s-blocks", overrides=[overrides % given])
        with pytest.raises(SpecError) as caught:
            archspec.build(spec, patch_size=(32, 32, 32))
        assert str(caught.value).startswith(message)
    spec = archspec.load(
        "mednext-s-blocks", overrides=["encoder.stages.1.downsample.kernel_size=1"]
    )
    with pytest.raises(
        SpecError, match=r"downsample\.kernel_size: \[1, 1, 1\] with stride .* skips"
    ):
        archspec.plan(spec)
    spec = archspec.load("mednext-s-blocks", overrides=["encoder.stages.1.mixer.dilation=[2, 2]"])
    with pytest.raises(SpecError, match=r"mixer\.dilation: \[2, 2\] has 2 entries"):
        archspec.plan(spec)
