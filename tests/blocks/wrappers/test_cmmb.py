"""CMMB: its formula written out, what its mixer sees, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec.network.build import build_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError, StageShape
from blocks.mixers.attention import AttentionMixerSpec
from blocks.mixers.tom import TomMixerSpec
from blocks.wrappers.cmmb import CMMBSpec

SpecFactory = Callable[..., ArchSpec]


class Recorder(nn.Module):
    """Keep what comes in, and give something else that is not zero in the padding."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return 2 * x.cumsum(-1) + 1


@pytest.mark.parametrize("resizing", [3, 5])
def test_formula(ndim: int, resizing: int) -> None:
    grid = (7, 4, 5)[:ndim]
    mixer = Recorder()
    spec = CMMBSpec(norm="instance", mixer_norm="none", resize_kernel=resizing)
    at = StageShape(3, grid)
    block = spec.build(at, mixer=mixer, ffn=None).double()
    x = torch.randn(2, 3, *grid, dtype=torch.float64)
    out = block(x)

    def part(layers: nn.Module, z: Tensor) -> Tensor:
        return nn.functional.instance_norm(layers[0](z)).relu()

    half = tuple(math.ceil(n / 2) for n in grid)
    z = part(block.first, part(block.shrink, x))
    assert tuple(z.shape[2:]) == half
    padded = torch.zeros(2, 3, *spec.mixer_shape(at).grid, dtype=torch.float64)
    inside = (slice(None), slice(None), *(slice(n) for n in half))
    padded[inside] = z
    torch.testing.assert_close(mixer.seen, padded)
    z = part(block.enlarge, part(block.last, (2 * padded.cumsum(-1) + 1)[inside]))
    assert tuple(z.shape[2:]) == tuple(2 * n for n in half)
    ends = (slice(None), slice(None), *(slice(-n, None) for n in grid))  # the first plane goes
    torch.testing.assert_close(out, x + z[ends])
    kernels = [block.shrink, block.first, block.last, block.enlarge]
    assert [layers[0].kernel_size[0] for layers in kernels] == [resizing, 3, 3, resizing]


@pytest.mark.parametrize(
    ("grid", "want"),
    [((8, 8, 8), (4, 4, 4)), ((6, 5, 1), (4, 4, 2)), ((3, 2), (2, 2)), ((9, 12), (6, 6))],
)
def test_what_the_mixer_sees(grid: tuple[int, ...], want: tuple[int, ...]) -> None:
    assert CMMBSpec().mixer_shape(StageShape(4, grid)) == StageShape(4, want)


@pytest.mark.parametrize("reduction", [1, 2, 3, 4, 6])
def test_divisor_is_enough_for_the_mixer(reduction: int) -> None:
    (step,) = CMMBSpec().grid_divisor((reduction,))
    assert step == {1: 1, 2: 1, 3: 12, 4: 8, 6: 12}[reduction]
    for n in range(step, 50, step):
        assert CMMBSpec().mixer_shape(StageShape(4, (n,))).grid[0] % reduction == 0


@pytest.mark.parametrize(
    ("reduction", "patch_size", "total"),
    [(2, [6, 10], 2), (4, [16, 32], 16), ([1, 3, 2], [10, 24, 6], [2, 24, 2])],
)
def test_reduced_attention(
    reduction: Any, patch_size: list[int], total: Any, small_spec: SpecFactory
) -> None:
    mixer = AttentionMixerSpec(
        reduction=tuple(reduction) if isinstance(reduction, list) else reduction
    )
    spec = small_spec(
        len(patch_size), mixer=mixer, block=CMMBSpec(), strides=[2], patch_size=patch_size
    )
    planned = plan(spec)
    total = tuple(total) if isinstance(total, list) else (total,) * len(patch_size)
    assert planned.total_stride == total
    net = build_plan(planned)
    for factor in (1, 3):
        grid = tuple(factor * step for step in total)
        assert net(torch.randn(1, 1, *grid)).shape[2:] == grid


def test_grid_that_the_mixer_cannot_reduce_is_refused(small_spec: SpecFactory) -> None:
    mixer = AttentionMixerSpec(reduction=4)
    spec = small_spec(2, mixer=mixer, block=CMMBSpec(), strides=[2], patch_size=[24, 32])
    with pytest.raises(SpecError) as caught:
        plan(spec, InputSizes(exact=True))
    message = str(caught.value)
    assert message.startswith("encoder.stages.0.mixer.reduction: grid [12, 16] must ")
    assert message.endswith("nearest: [16, 32] or [32, 32]")


def test_slices_divide_what_the_mixer_sees(small_spec: SpecFactory) -> None:
    block, patch_size = CMMBSpec(), [20, 6]  # 10 x 3, of which the mixer sees 6 x 2
    for num_slices in (6, 4):
        mixer = TomMixerSpec(num_slices=num_slices)
        plan(small_spec(2, mixer=mixer, block=block, strides=[2], patch_size=patch_size))
    spec = small_spec(
        2, mixer=TomMixerSpec(num_slices=5), block=block, strides=[2], patch_size=patch_size
    )
    with pytest.raises(SpecError, match=r"axis 0 of grid \[6, 2\], must divide its 12 tokens"):
        plan(spec, InputSizes(exact=True))


def test_one_position_inside_is_refused() -> None:
    spec = CMMBSpec(norm="instance", mixer_norm="instance")
    spec.check(StageShape(4, (1, 2, 3)))
    with pytest.raises(
        SpecError, match=r"^norm: 'instance' .* axis of 3 or more \(cmmb halves \[2"
    ):
        spec.check(StageShape(4, (2, 2, 2)))
    CMMBSpec(norm="layer", mixer_norm="instance").check(StageShape(4, (1, 1)))  # 2 x 2 inside
    with pytest.raises(SpecError, match=r"^mixer_norm: 'group\(3\)' needs"):
        CMMBSpec(mixer_norm="group(3)").check(StageShape(4, (8, 8)))
