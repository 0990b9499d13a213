"""Plans: shapes, nnU-Net's strides, and every refusal about sizes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from archspec import plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec, SpecError

SpecFactory = Callable[..., ArchSpec]


def net(*stages: dict[str, Any], decoder: dict[str, Any] | None = None, **fields: Any) -> ArchSpec:
    base = {"width": 16, "mixer": {"kind": "conv"}}
    return load(
        {
            "name": "net",
            "patch_size": [32, 32, 32],
            "encoder": {"stages": [{**base, **stage} for stage in stages]},
            "decoder": decoder or {"kind": "sum"},
            **fields,
        }
    )


def refused(spec: ArchSpec, **sizes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        plan(spec, exact=True, **sizes)
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)
    return str(caught.value)


def test_shapes() -> None:
    spec = net({}, {"width": 24, "downsample": {"stride": [1, 2, 2]}}, patch_size=[8, 16, 32])
    planned = plan(spec, in_channels=4, num_classes=5)
    assert [(s.inp.channels, s.inp.grid) for s in planned.stages] == [
        (4, (8, 16, 32)),
        (16, (4, 8, 16)),
    ]
    assert [(s.channels, s.grid) for s in planned.skips] == [(16, (4, 8, 16)), (24, (4, 4, 8))]
    assert planned.total_stride == (2, 4, 4)
    assert (planned.in_channels, planned.num_classes) == (4, 5)
    assert [stage.path for stage in planned.stages] == ["encoder.stages.0", "encoder.stages.1"]


@pytest.mark.parametrize(
    ("patch", "heads", "rows"),
    [
        ([32, 32, 32], 1, [[1, 1, 1], [1, 1, 2], [1, 1, 2]]),
        ([30, 30], 1, [[1, 1], [1, 2], [1, 2]]),
        ([9, 9], 1, [[1, 1], [1, 1], [1, 1]]),
        ([32, 32], 2, [[1, 1], [2, 2], [2, 2]]),
        ([32, 64, 32], 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]),
    ],
)
def test_strides_rows(patch: list[int], heads: int, rows: list[list[int]]) -> None:
    same = {"downsample": {"stride": 1}}
    deeper = [{}] * (heads if heads > 1 else 0)
    spec = net(same, *deeper, patch_size=patch, deep_supervision={"heads": heads})
    assert plan(spec).strides == rows


def test_heads_jump_over_equal_grids() -> None:
    spec = net(
        {"downsample": {"stride": 4, "kernel_size": 5}},
        {"downsample": {"stride": 1}},
        {"downsample": {"stride": [1, 2, 2]}},
        decoder={"kind": "mlp"},
        deep_supervision={"heads": 2},
    )
    planned = plan(spec)
    assert planned.output_grids == ((32, 32, 32), (8, 4, 4))
    assert planned.strides == [[1, 1, 1], [4, 8, 8], [4, 8, 8]]
    assert "3 heads, but the decoder has features at 2 different grids; use at most 2" in refused(
        spec.model_copy(update={"deep_supervision": type(spec.deep_supervision)(heads=3)})
    )


def test_impossible_patch_names_the_rule_and_the_nearest_sizes() -> None:
    spec = net({}, {}, {})
    assert refused(spec, patch_size=(32, 32, 36)) == (
        "encoder.stages.2.downsample.stride: grid [8, 8, 9] must divide by [2, 2, 2]; "
        "patch_size [32, 32, 36] must divide by [8, 8, 8]; nearest: [32, 32, 32] or [32, 32, 40]"
    )
    assert refused(spec, patch_size=(3, 8)).endswith("nearest: [8, 8]")


@pytest.mark.parametrize("patch_size", [(), (8,), (8,) * 4, (8, 0), (8, -8), (8, 8.0), (8, True)])
def test_patch_size_argument(patch_size: Any) -> None:
    assert refused(net({}), patch_size=patch_size) == (
        f"patch_size: must be 2 or 3 sizes in voxels, e.g. (32, 32, 32), but is {patch_size!r}"
    )


@pytest.mark.parametrize(
    ("sizes", "want"),
    [
        ({"in_channels": 0}, "in_channels: must be an integer of at least 1, but is 0"),
        ({"in_channels": True}, "in_channels: must be an integer of at least 1, but is True"),
        ({"num_classes": 0}, "num_classes: must be an integer of at least 1, but is 0"),
        ({"num_classes": "3"}, "num_classes: must be an integer of at least 1, but is '3'"),
    ],
)
def test_count_arguments(sizes: dict[str, Any], want: str) -> None:
    assert refused(net({}), **sizes) == want


REFUSED = {
    "too many heads": (
        net({}, {}, deep_supervision={"heads": 2}),
        "deep_supervision.heads: 2 heads, but the decoder has features at 1 different grids; "
        "use at most 1",
    ),
    "conv head with a gap": (
        net({}, {}, decoder={"kind": "sum", "head": "conv"}),
        "decoder.head: 'conv' needs decoder features at patch size, but they are [2, 2, 2] times "
        "coarser; use head: transpose or interpolate",
    ),
    "instance norm over one position": (
        net({"downsample": {"stride": 4, "kernel_size": 5}, "norm": "instance"}, patch_size=[4, 4]),
        "encoder.stages.0.norm: 'instance' over a grid of one position",
    ),
    "instance norm in a block": (
        net({"block": {"kind": "residual", "norm": "instance_affine"}}, patch_size=[2, 2]),
        "encoder.stages.0.block.norm: 'instance_affine' over a grid of one position",
    ),
    "batch norm over one position": (
        net({"downsample": {"norm": "batch"}}, patch_size=[2, 2]),
        "encoder.stages.0.downsample.norm: 'batch' over a grid of one position",
    ),
    "norm of the decoder": (
        net({}, {}, decoder={"kind": "mlp", "proj_norm": "instance"}, patch_size=[4, 4]),
        "decoder.proj_norm: 'instance' over a grid of one position",
    ),
    "groups that do not divide": (
        net({"block": {"kind": "residual", "norm": "group(3)"}}),
        "encoder.stages.0.block.norm: 'group(3)' needs channels divisible by 3, but there are 16",
    ),
    "even kernel in a mixer": (
        net({"mixer": {"kind": "conv", "kernel_size": 4}}),
        "encoder.stages.0.mixer.kernel_size: [4, 4, 4] must be odd to keep the grid",
    ),
    "even kernel without stride": (
        net({"downsample": {"kernel_size": 2, "stride": [1, 2, 2]}}),
        "encoder.stages.0.downsample.kernel_size: [2, 2, 2] with stride [1, 2, 2] skips positions "
        "or shifts the grid; use a kernel >= stride, odd where the stride is 1",
    ),
    "kernel smaller than its stride": (
        net({"downsample": {"kernel_size": 3, "stride": 4}}),
        "encoder.stages.0.downsample.kernel_size: [3, 3, 3] with stride [4, 4, 4] skips positions",
    ),
    "stride for another number of axes": (
        net({"downsample": {"stride": 5}}, {"downsample": {"stride": [2, 2]}}),
        "encoder.stages.1.downsample.stride: [2, 2] has 2 entries, but patch_size has 3 axes; "
        "give one integer or 3 of them",
    ),
    "kernel for another number of axes": (
        net({"mixer": {"kind": "conv", "kernel_size": [3, 3]}}),
        "encoder.stages.0.mixer.kernel_size: [3, 3] has 2 entries, but patch_size has 3 axes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    spec, want = REFUSED[case]
    assert refused(spec).startswith(want)


def test_parts_of_blocks_that_are_not_built_ask_for_nothing(block: ComponentSpec) -> None:
    mixer = {"kind": "attention", "num_heads": 3, "reduction": 32}
    stage = {"block": {**block.model_dump(mode="json"), "norm": "group(3)"}, "mixer": mixer}
    planned = plan(net({**stage, "depth": 0}))
    assert planned.total_stride == (2, 2, 2)
    assert build_plan(planned)(torch.zeros(1, 1, 6, 2, 4)).shape == (1, 2, 6, 2, 4)
    assert refused(net(stage)).startswith("encoder.stages.0.block.norm: 'group(3)' needs")


def test_even_kernel_with_stride_is_fine() -> None:
    assert plan(net({"downsample": {"kernel_size": 2, "stride": 2}})).skips[0].grid == (16, 16, 16)


def test_any_mixer_fits_any_decoder(
    mixer: ComponentSpec, decoder: ComponentSpec, ndim: int, small_spec: SpecFactory
) -> None:
    planned = plan(small_spec(ndim, mixer=mixer, decoder=decoder))
    assert planned.output_grids[0] == planned.patch_size


def test_bundled_spec_plans_at_its_smallest_patch(
    spec_name: str, shrunk: Callable[..., Plan]
) -> None:
    planned = shrunk(spec_name)
    try:
        assert plan(planned.spec, patch_size=planned.total_stride) is not None
    except SpecError as error:  # what is refused is the statistic or the slices, never the stride
        assert re.search("over a grid of one position|num_slices: ", str(error))
