"""Fields of decoders that hold for all levels at once, or level by level."""

from typing import Any

import pytest
import torch
from torch import nn

from archspec.spec.load import load
from blocks.base import SpecError, StageShape
from blocks.decoders.concat import ConcatDecoder, ConcatDecoderSpec
from blocks.decoders.decoder import Heads
from blocks.decoders.sum import SumDecoder, SumDecoderSpec

SKIPS = tuple(StageShape(2 + level, (8 >> level,) * 3) for level in range(4))
HEADS = Heads(count=1, num_classes=2, patch_size=(8, 8, 8))
KERNELS = ((1, 3, 3), (3, 3, 3), 5)
BY_LEVEL = [(1, 3, 3), (3, 3, 3), (5, 5, 5)]


def kernels(part: nn.Module) -> set[tuple[int, ...]]:
    """Return the kernels of the part's convolutions that are larger than one position."""
    found = {tuple(one.kernel_size) for one in part.modules() if isinstance(one, nn.Conv3d)}
    return found - {(1, 1, 1)}


@pytest.mark.parametrize("num_convs", [None, 2])
def test_kernels_of_a_concatenation(num_convs: int | None) -> None:
    decoder = ConcatDecoderSpec(kernel_size=KERNELS, num_convs=num_convs).build(SKIPS, HEADS)
    assert isinstance(decoder, ConcatDecoder)
    assert [kernels(block) for block in decoder.blocks] == [{size} for size in BY_LEVEL]
    units = [kernels(block) for block in decoder.skip_blocks]
    assert units == [{size} for size in (*BY_LEVEL, BY_LEVEL[-1])]
    assert kernels(decoder.last) == {BY_LEVEL[0]}
    skips = [torch.randn(1, at.channels, *at.grid) for at in SKIPS]
    assert [tuple(x.shape[2:]) for x in decoder.features(skips)] == [s.grid for s in SKIPS[:-1]]


def test_levels_of_a_summation() -> None:
    decoder = SumDecoderSpec(kernel_size=KERNELS, num_blocks=(2, 0, 1)).build(SKIPS, HEADS)
    assert isinstance(decoder, SumDecoder)
    assert [len(block) for block in decoder.blocks] == [2, 0, 1]
    assert [kernels(block) for block in decoder.blocks] == [{BY_LEVEL[0]}, set(), {BY_LEVEL[2]}]
    skips = [torch.randn(1, at.channels, *at.grid) for at in SKIPS]
    assert [x.shape[1] for x in decoder.features(skips)] == [at.channels for at in SKIPS[:-1]]


def test_steps_per_level() -> None:
    spec = ConcatDecoderSpec(num_convs=(1, 3, 2), bias=False, dropout=0.25, skip_block="none")
    decoder = spec.build(SKIPS, HEADS)
    assert isinstance(decoder, ConcatDecoder)
    assert [len(block) for block in decoder.blocks] == [1, 3, 2]
    assert [type(layer) for layer in decoder.blocks[0][0]][:2] == [nn.Conv3d, nn.Dropout3d]
    convolutions = (nn.Conv3d, nn.ConvTranspose3d)
    inner = [m for part in (decoder.ups, decoder.blocks) for m in part.modules()]
    assert all(m.bias is None for m in inner if isinstance(m, convolutions))


def test_one_for_all_is_what_it_was() -> None:
    """The defaults, and a kernel per axis, are those of a decoder without lists."""
    texts = {
        repr(ConcatDecoderSpec(num_convs=2, **fields).build(SKIPS, HEADS))
        for fields in (
            {},
            {"kernel_size": (3, 3, 3)},
            {"kernel_size": (3, (3, 3, 3), 3)},
            {"bias": True, "dropout": 0.0},
        )
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "concat", "kernel_size": ((1, 3, 3), 3)},
            "decoder.kernel_size: 2 entries, but the decoder has 3 levels; give one for all, or "
            "one per level, fine to coarse",
        ),
        (
            {"kind": "sum", "num_blocks": (1, 1)},
            "decoder.num_blocks: 2 entries, but the decoder has",
        ),
        (
            {"kind": "concat", "num_convs": (1, 1, 1, 1)},
            "decoder.num_convs: 4 entries, but the decoder has 3 levels",
        ),
        (
            {"kind": "sum", "kernel_size": ((1, 3), 3, 3)},
            "decoder.kernel_size: [1, 3] has 2 entries, but patch_size has 3 axes",
        ),
        (
            {"kind": "concat", "kernel_size": (3, (3, 2, 3), 3)},
            "decoder.kernel_size: [3, 2, 3] must be odd to keep the grid",
        ),
        (
            {"kind": "concat", "bias": False},
            "decoder.bias: goes with num_convs, for residual units",
        ),
        ({"kind": "concat", "dropout": 0.5}, "decoder.dropout: goes with num_convs, for residual"),
    ],
)
def test_what_does_not_fit(fields: dict[str, Any], message: str) -> None:
    model = {"sum": SumDecoderSpec, "concat": ConcatDecoderSpec}[fields["kind"]]
    with pytest.raises(SpecError) as caught:
        model.model_validate(fields).check(SKIPS, HEADS)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("kernel_size", value) for value in ([3, 3, 3, 3], [[3, 0, 3], 3], [[3]], [], "3", True)),
        *(("num_convs", value) for value in ([2, 0], [], [[2]], 0, 1.5)),
    ],
)
def test_what_is_no_value(field: str, value: Any) -> None:
    stage = {"width": 4, "mixer": {"kind": "conv"}}
    tree = {"name": "net", "patch_size": [8, 8, 8], "encoder": {"stages": [stage] * 4}}
    with pytest.raises(SpecError) as caught:
        load({**tree, "decoder": {"kind": "concat", field: value}})
    (one,) = caught.value.problems
    assert one.field == f"decoder.{field}"
    assert "per level" in one.problem and "fine to coarse" in one.problem
