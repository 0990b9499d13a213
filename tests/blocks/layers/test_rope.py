"""The rotation of embeddings against stored numbers; data: tests/golden/segformer3d/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import archspec
from blocks.base import SpecError, StageShape
from blocks.layers.rope import EmbeddingRope, check_rope

FILE = Path(__file__).parents[2] / "golden" / "segformer3d" / "rope3d.npz"


@pytest.mark.parametrize("channels", [32, 36])
def test_equals_fixture(channels: int) -> None:
    with np.load(FILE, allow_pickle=False) as data:
        grid = tuple(int(n) for n in data["grid"])
        given, want = (
            torch.from_numpy(data[f"emb{channels}_{end}"]).mT.reshape(1, channels, *grid)
            for end in ("in", "out")
        )
    rope = EmbeddingRope(StageShape(channels, grid))
    torch.testing.assert_close(rope(given), want, rtol=0, atol=1e-6)
    rest = 6 * (channels // 6)
    assert torch.equal(rope(given)[:, rest:], given[:, rest:])


@pytest.mark.parametrize("channels", [32, 36])
def test_slices_of_the_fixture_are_two_dimensional(channels: int) -> None:
    """At one depth, the two last thirds of the stored channels are turned as an image's are."""
    with np.load(FILE, allow_pickle=False) as data:
        depth, *grid = (int(n) for n in data["grid"])
        given, want = (
            torch.from_numpy(data[f"emb{channels}_{end}"])[0].mT.reshape(channels, depth, *grid)
            for end in ("in", "out")
        )
    third = 2 * (channels // 6)
    given, want = (x[third : 3 * third].transpose(0, 1) for x in (given, want))
    rope = EmbeddingRope(StageShape(2 * third, tuple(grid)))
    torch.testing.assert_close(rope(given), want, rtol=0, atol=1e-6)
    assert (given - want).abs().max() > 0.1


@pytest.mark.parametrize("grid", [(3, 5), (3, 5, 2)])
def test_rotation_keeps_lengths(grid: tuple[int, ...]) -> None:
    x = torch.randn(2, 14, *grid)
    turned = EmbeddingRope(StageShape(14, grid))(x)
    torch.testing.assert_close(turned.norm(dim=1), x.norm(dim=1))
    assert torch.equal(turned[(..., *(0,) * len(grid))], x[(..., *(0,) * len(grid))])
    assert turned.bfloat16().dtype == EmbeddingRope(StageShape(14, grid))(x.bfloat16()).dtype


def test_narrow_width_is_refused() -> None:
    check_rope(StageShape(6, (4, 4, 4)), field="rope")
    with pytest.raises(SpecError, match=r"^rope: .* needs a width of at least 6, but it is 5"):
        check_rope(StageShape(5, (4, 4, 4)), field="rope")


@pytest.mark.parametrize("patch", [[16, 8], [16, 8, 8]])
def test_rope_of_a_stage_stands_between_convolution_and_norm(patch: list[int]) -> None:
    """All ways through a network with both kinds of rotation: built, costed, run, refused."""
    stage = {
        "width": 12,
        "downsample": {"stride": 2, "rope": True, "norm": "layer"},
        "mixer": {"kind": "attention", "rope": "axial"},
    }
    spec = {
        "name": "net",
        "patch_size": patch,
        "encoder": {"stages": [stage]},
        "decoder": {"kind": "mlp"},
    }
    net, x = archspec.build(spec), torch.randn(2, 1, *patch)
    conv, rope, norm = net.stages[0].downsample
    assert torch.equal(net.stages[0].downsample(x), norm(rope(conv(x))))
    assert isinstance(rope, EmbeddingRope)
    flops = archspec.cost(spec).flops  # first: it tells older counters of PyTorch of attention
    with FlopCounterMode(display=False) as counter:
        net(x[:1])
    assert flops == counter.get_total_flops()
    with pytest.raises(SpecError, match=r"encoder\.stages\.0\.downsample\.rope: one pair"):
        archspec.build(archspec.load(spec, overrides=["encoder.stages.0.width=3"]))
