"""Strides and kernels fitted to the spacing, as nnU-Net's planner fits those of its U-Net."""

import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from archspec import plan
from archspec.network.build import build
from archspec.network.input_sizes import InputSizes
from archspec.network.stages import FittedStages, fit_stages, fitted
from archspec.nnunet.contract import check_contract, network_arguments
from archspec.nnunet.export import export_nnunet
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec, SpecError, StageShape, per_axis

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]
SmallSpec = Callable[..., ArchSpec]

THICK = (5.0, 1.0, 1.0)  # mm, along (D, H, W)
SPACINGS = [(1, 1, 1), THICK, (2.5, 0.8, 0.8), (3, 0.5, 1), (1, 1, 8), (0.7, 0.7), (1, 3)]
PATCHES = [(16, 320, 256), (40, 56, 40), (128, 128, 128), (64, 192, 24), (512, 512), (48, 256)]


def strides_of(spec: ArchSpec, ndim: int = 3) -> list[list[int]]:
    return [list(stage.downsample.strides(ndim)) for stage in spec.encoder.stages]


def u_net(num_stages: int, patch: tuple[int, ...], **decoder: Any) -> ArchSpec:
    """Return a convolutional network with nnU-Net's stages: the first one at full resolution."""
    block = {"kind": "plain", "norm": "instance"}
    stage = {"width": 4, "mixer": {"kind": "conv"}, "block": block}
    down = [{"stride": 1 if index == 0 else 2} for index in range(num_stages)]
    return load(
        {
            "name": "u-net",
            "patch_size": patch,
            "encoder": {"stages": [{**stage, "downsample": each} for each in down]},
            "decoder": {"kind": "concat", **decoder},
        }
    )


@pytest.mark.parametrize(
    ("spacing", "patch"),
    [pair for pair in itertools.product(SPACINGS, PATCHES) if len(pair[0]) == len(pair[1])],
)
def test_as_nnunet_plans(spacing: tuple[float, ...], patch: tuple[int, ...]) -> None:
    """With as many stages as nnU-Net plans, strides and every kernel are nnU-Net's own."""
    topology = pytest.importorskip(
        "nnunetv2.experiment_planning.experiment_planners.network_topology"
    )
    _, strides, kernels, _, _ = topology.get_pool_and_conv_props(spacing, patch, 4, 999999)
    found = fit_stages(u_net(len(strides), patch), spacing=spacing, patch_size=patch)
    ndim = len(patch)
    assert strides_of(found, ndim) == [list(row) for row in strides]
    strided = [False] * ndim
    for stage, stride, kernel in zip(found.encoder.stages, strides, kernels, strict=True):
        strided = [before or step > 1 for before, step in zip(strided, stride, strict=True)]
        # nnU-Net also plans stride 2 with kernel 1, where a finer axis is too short to pool
        wanted = tuple(3 if axis else k for axis, k in zip(strided, kernel, strict=True))
        for part in (stage.downsample, stage.mixer, stage.block):
            assert per_axis(part.kernel_size, ndim, where="") == wanted  # type: ignore[union-attr]


def cases() -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
    """Return spacings and patches: of known datasets, and drawn ones in 2-D and 3-D."""
    known: list[tuple[tuple[float, ...], tuple[int, ...]]] = [
        ((8, 0.5, 0.5), (8, 320, 256)),  # thick slices
        ((1, 1, 1), (40, 56, 40)),  # Hippocampus
        ((5, 1.5625, 1.5625), (20, 256, 224)),  # ACDC
        ((1, 1, 1), (128, 128, 128)),
        ((0.7, 0.7), (512, 512)),
        ((1, 1), (320, 320)),
    ]
    drawn = random.Random(0)
    for number in range(40):
        ndim = 2 + number % 2
        spacing = tuple(round(math.exp(drawn.uniform(-1, 2.2)), 2) for _ in range(ndim))
        known.append((spacing, tuple(drawn.randrange(4, 200, 2) for _ in range(ndim))))
    return known


@pytest.mark.parametrize(("spacing", "patch"), cases())
def test_unet_is_what_nnunet_plans(spacing: tuple[float, ...], patch: tuple[int, ...]) -> None:
    """Stages, strides, kernels of encoder and decoder, and heads, as far as `unet` has stages."""
    topology = pytest.importorskip(
        "nnunetv2.experiment_planning.experiment_planners.network_topology"
    )
    _, strides, kernels, _, _ = topology.get_pool_and_conv_props(spacing, patch, 4, 999999)
    sizes = InputSizes(spacing=spacing, patch_size=patch)
    spec = fitted(load("unet"), sizes).spec
    stages, ndim = spec.encoder.stages, len(patch)
    assert len(stages) == min(len(strides), 6)
    assert strides_of(spec, ndim) == [list(row) for row in strides[: len(stages)]]
    strided = [False] * ndim
    wanted = []
    for stride, kernel in zip(strides, kernels, strict=True):
        strided = [before or step > 1 for before, step in zip(strided, stride, strict=True)]
        # the one deviation: nnU-Net plans stride 2 with kernel 1 where a finer axis is too short
        wanted.append(tuple(3 if axis else k for axis, k in zip(strided, kernel, strict=True)))
    encoder = [per_axis(stage.mixer.kernel_size, ndim, where="") for stage in stages]  # type: ignore[union-attr]
    assert encoder == [*wanted[: len(stages) - 1], (3,) * ndim]
    skips = tuple(StageShape(8, patch) for _ in stages)
    decoder = spec.decoder.kernels(skips)[:-1]  # type: ignore[union-attr]
    if len(stages) > 1:
        assert decoder == tuple(encoder[:-1])
    assert spec.deep_supervision.heads == max(len(stages) - 1, 1)
    assert plan(load("unet"), patch_size=patch, spacing=spacing).spec == spec


def test_the_spec_stays_where_spacing_is_even() -> None:
    """Isotropic data change nothing, so weights of the spec still fit."""
    for name in ("unet", "segmamba", "segresmamba", "segmaformer"):
        spec = load(name)
        same = fit_stages(spec, spacing=(1.0, 1.0, 1.5), patch_size=(128, 128, 128))
        assert same == spec
        assert arch_hash(same) == arch_hash(spec)


def test_large_strides_go_step_by_step() -> None:
    """A stem of stride 4 leaves D out of both its halvings: 5 mm beside 1, then beside 2."""
    spec = load("segmaformer")
    found = fit_stages(spec, spacing=THICK, patch_size=(32, 256, 256))
    assert strides_of(found) == [[1, 4, 4], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert [stage.downsample.kernel_size for stage in found.encoder.stages] == [(3, 7, 7), 3, 3, 3]


def stages(*downsamples: dict[str, Any], **fields: Any) -> ArchSpec:
    stage = {"width": 4, "mixer": {"kind": "conv"}, **fields}
    return load(
        {
            "name": "stages",
            "patch_size": [16, 64, 64],
            "encoder": {"stages": [{**stage, "downsample": down} for down in downsamples]},
            "decoder": {"kind": "sum"},
        }
    )


@pytest.mark.parametrize(
    ("written", "spacing", "stride", "kernel"),
    [
        # Patches that do not overlap stay so; other even kernels become odd where stride is 1.
        ({"stride": 4, "kernel_size": 4}, (3, 1, 1), [2, 4, 4], [2, 4, 4]),
        ({"stride": 2, "kernel_size": 2}, (1.5, 1, 4), [2, 2, 1], [2, 2, 1]),
        ({"stride": 2, "kernel_size": 4}, (3, 1, 1), [1, 2, 2], [3, 4, 4]),
        ({"stride": 2, "kernel_size": 4}, (9, 1, 1), [1, 2, 2], [1, 4, 4]),
        # What the spec says per axis gives way to what the dataset asks for.
        ({"stride": [1, 2, 2], "kernel_size": [1, 3, 3]}, (1, 1, 1), [2, 2, 2], [3, 3, 3]),
        ({"stride": 3, "kernel_size": 3}, (1, 1, 2), [3, 3, 1], [3, 3, 1]),
        # A kernel shrinks with its stride, to the odd size above.
        ({"stride": 6, "kernel_size": 7}, (2, 1, 1), [3, 6, 6], [5, 7, 7]),
        ({"stride": 2, "kernel_size": 7}, (2.5, 1, 1), [1, 2, 2], [5, 7, 7]),
    ],
)
def test_kernels_of_strided_convolutions(
    written: dict[str, Any], spacing: tuple[float, ...], stride: list[int], kernel: list[int]
) -> None:
    spec = stages(written, {"stride": 1})
    first = fit_stages(spec, spacing=spacing, patch_size=(36, 72, 72)).encoder.stages[0].downsample
    assert list(per_axis(first.stride, 3, where="")) == stride
    assert list(per_axis(first.kernel_size, 3, where="")) == kernel


def test_short_axes_are_not_strided() -> None:
    """Below 4 positions nothing is strided: stages that would repeat a grid go, and their heads."""
    spec = load("unet")
    found = fitted(spec, InputSizes(spacing=(1, 1, 1), patch_size=(8, 32, 32)))
    assert strides_of(found.spec) == [[1, 1, 1], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert (found.dropped, found.kept) == ((4, 5), ())
    assert "heads 3; stages 4, 5 dropped, where no axis is left to stride" in found.note
    assert spec.deep_supervision.heads == 5
    assert found.spec.deep_supervision.heads == 3
    planned = plan(found.spec, patch_size=(8, 32, 32))
    assert planned.skips[-1].grid == (4, 4, 4)


def last_of(*mixers: dict[str, Any], **fields: Any) -> FittedStages:
    """Return stages of stride 2 with these mixers, fitted to a patch that halves twice."""
    each = [{"width": 8 * (i + 1), "mixer": m, **fields} for i, m in enumerate(mixers)]
    spec = load({"name": "n", "patch_size": [16] * 3, "encoder": {"stages": each}, **DECODER})
    return fitted(spec, InputSizes(spacing=(1, 1, 1), patch_size=(16, 16, 16)))


DECODER: dict[str, Any] = {"decoder": {"kind": "sum"}, "deep_supervision": {"heads": 3}}
CONV: dict[str, Any] = {"kind": "conv"}


@pytest.mark.parametrize(
    ("mixers", "dropped", "kept"),
    [
        ((CONV, CONV, CONV, CONV), (2, 3), ()),
        ((CONV, CONV, CONV, {"kind": "mamba"}), (2,), (3,)),
        ((CONV, CONV, {"kind": "mamba"}, {"kind": "mamba"}), (3,), (2,)),
        ((CONV, {"kind": "mamba"}, {"kind": "mamba", "d_state": 8}, CONV), (3,), (2,)),
        # a kernel counts by its largest axis
        ((CONV, CONV, {"kind": "conv", "kernel_size": [1, 3, 3]}), (2,), ()),
        ((CONV, CONV, {"kind": "conv", "kernel_size": 5}), (), (2,)),
    ],
)
def test_trailing_stages(
    mixers: tuple[dict[str, Any], ...], dropped: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    """One of each mixer and block stays; the note says which stages went and which did not."""
    found = last_of(*mixers)
    assert (found.dropped, found.kept) == (dropped, kept)
    widths = [stage.width for stage in found.spec.encoder.stages]
    assert widths == [8 * (i + 1) for i in range(len(mixers)) if i not in dropped]
    for numbers, words in ((dropped, "dropped"), (kept, "kept at stride 1")):
        assert (f" {', '.join(map(str, numbers))} {words}" in found.note) is bool(numbers)
    planned = plan(found.spec, patch_size=(16, 16, 16))
    assert planned.skips[-1].grid == (4, 4, 4)


def test_a_stage_that_strode_along_no_axis_before_stays() -> None:
    spec = stages({"stride": 2}, {"stride": 2}, {"stride": 1})
    assert len(fit_stages(spec, spacing=(1, 1, 1), patch_size=(16,) * 3).encoder.stages) == 3
    other = last_of(CONV, CONV, CONV, block={"kind": "basic", "norm": "instance"})
    assert other.dropped == (2,), "blocks are compared as mixers are"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({"num_convs": [1, 2, 3]}, {"num_convs": (1,), "kernel_size": 3}),
        (
            {"num_convs": [1, 2, 3, 4], "input_skip": True, "skip_block": "none"},
            {"num_convs": (1, 2)},
        ),
        ({"kernel_size": [[3, 3, 3], [1, 3, 3], [1, 1, 1]]}, {"kernel_size": 3}),
        ({"kernel_size": [1, 5, 5], "bottleneck_width": 64}, {"bottleneck_width": 32}),
        ({"bottleneck_width": 33}, {"bottleneck_width": 33}),
        ({"kind": "sum", "num_blocks": [2, 1, 1], "kernel_size": 5}, {"num_blocks": (2,)}),
    ],
)
def test_what_a_decoder_says_by_level(written: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Levels go with their stages, and the network is built."""
    each = {"width": 8, "mixer": CONV, "skip": {"tap": "before_blocks"}}
    last = {**each, "width": 16, "skip": {}}
    spec = load(
        {
            "name": "n",
            "patch_size": [16] * 3,
            "encoder": {"stages": [each, each, each, last]},
            "decoder": {"kind": "concat", **written},
        }
    )
    found = fit_stages(spec, spacing=(1, 1, 1), patch_size=(16, 16, 16))
    assert len(found.encoder.stages) == 2
    assert {field: getattr(found.decoder, field) for field in wanted} == wanted
    assert (
        build(found, patch_size=(16, 16, 16))(torch.randn(1, 1, 16, 16, 16)).shape[2:] == (16,) * 3
    )


@pytest.mark.parametrize(
    ("written", "kernels"),
    [
        (3, ((1, 3, 3), (1, 3, 3), (3, 3, 3))),
        ([1, 3, 3], ((1, 3, 3), (1, 3, 3), (3, 3, 3))),
        ([[5, 5, 5], 3, [3, 3, 1]], ((1, 5, 5), (1, 3, 3), (3, 3, 3))),
        (1, 1),
    ],
)
def test_decoder_kernels_follow_the_encoders(written: Any, kernels: Any) -> None:
    """Thick slices: 1 along D where the stage of that grid has it, however they are written."""
    spec = u_net(4, (32, 64, 64), kernel_size=written)
    found = fit_stages(spec, spacing=THICK, patch_size=(32, 64, 64))
    assert found.decoder.kernel_size == kernels  # type: ignore[union-attr]
    assert fit_stages(found, spacing=THICK, patch_size=(32, 64, 64)) == found


def test_the_level_of_the_input_has_the_kernel_of_its_grid() -> None:
    spec = load("segmamba")
    found = fit_stages(spec, spacing=THICK, patch_size=(32, 64, 64))
    assert strides_of(found) == [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    level_kernels = ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert found.decoder.kernel_size == level_kernels  # type: ignore[union-attr]


def test_per_axis_lists_of_another_dimension_are_named() -> None:
    spec = load("unet", overrides=["encoder.stages.2.mixer.kernel_size=[1,3,3]"])
    with pytest.raises(SpecError) as told:
        fit_stages(spec, spacing=(1, 1), patch_size=(64, 64))
    assert str(told.value).startswith("encoder.stages.2.mixer.kernel_size: [1, 3, 3] has 3 entries")
    with pytest.raises(SpecError, match=r"^spacing=\(1, 0, 1\)  spacing: must be 3 sizes"):
        plan("unet", spacing=(1, 0, 1))
    with pytest.raises(SpecError, match=r"^spacing: must be 2 sizes in mm"):
        fit_stages(spec, spacing=(1, 1, 1), patch_size=(64, 64))


def test_fine_axis_too_short_to_stride() -> None:
    """Where nnU-Net would stride by 2 with kernel 1, the kernel stays: no position is skipped."""
    spec = stages({"stride": 2}, {"stride": 2}, {"stride": 2})
    found = fit_stages(spec, spacing=(1, 4, 4), patch_size=(4, 64, 64))
    first = found.encoder.stages[0].downsample
    assert (first.stride, first.kernel_size) == ((1, 2, 2), 3)


def test_every_stated_kernel_of_a_stage() -> None:
    spec = stages(
        *({"stride": 2},) * 2,
        block={"kind": "basic", "norm": "instance"},
        post={"kind": "conv"},
    )
    first, last = fit_stages(spec, spacing=(9, 1, 1), patch_size=(16, 64, 64)).encoder.stages
    for part in (first.downsample, first.mixer, first.block, first.post):
        assert part.kernel_size == (1, 3, 3)  # type: ignore[union-attr]
    assert last.mixer.kernel_size == 3  # type: ignore[union-attr]


def test_fitted_mixers_run(small_spec: SmallSpec, mixer: ComponentSpec) -> None:
    """Every mixer at 5 x 1 x 1 mm: the contract holds, and a real network keeps thick slices."""
    spec = small_spec(3, mixer=mixer, strides=(2, 2, 2, 2), heads=2)
    patch = (8, 32, 32)
    found = fit_stages(spec, spacing=THICK, patch_size=patch)
    assert strides_of(found) == [[1, 2, 2], [1, 2, 2], [2, 2, 2]]
    planned = plan(found, patch_size=patch)
    assert [stage.out.grid for stage in planned.stages] == [
        (8, 16, 16),
        (8, 8, 8),
        (4, 4, 4),
    ]
    check_contract(planned, network_arguments(planned), batch_size=2)
    assert build(found, patch_size=patch)(torch.randn(1, 1, *patch)).shape == (1, 2, *patch)


@pytest.mark.parametrize(
    "name", ["unet", "resenc-unet", "segmamba", "segresmamba", "segmaformer", "segformer3d"]
)
def test_papers_networks_at_thick_slices(name: str) -> None:
    """Full-size networks plan at 5 x 1 x 1 mm; the first two halvings leave D alone."""
    patch = (32, 256, 256)
    found = fit_stages(load(name), spacing=THICK, patch_size=patch)
    planned = plan(found, patch_size=patch)
    depth, height, width = planned.skips[-1].grid
    assert patch[0] / depth == patch[1] / height / 4 == patch[2] / width / 4
    assert found.encoder.stages[0].downsample != load(name).encoder.stages[0].downsample


def test_export_to_thick_slices(preprocessed: Path, rewrite: Rewrite) -> None:
    """The adapted spec stands in the plans, and its network trains a step on CPU."""
    change = {"spacing": list(THICK), "patch_size": [8, 32, 32]}
    rewrite(
        preprocessed / "nnUNetPlans.json",
        lambda tree: tree["configurations"]["3d_fullres"].update(change),
    )
    spec = stages({"stride": 2}, {"stride": 2}, {"stride": 2})
    export = export_nnunet(spec, 901, stages_from_dataset=True)
    settings = json.loads(export.path.read_text())["configurations"]["3d_fullres"]
    kwargs = settings["architecture"]["arch_kwargs"]
    (note,) = (note for note in export.notes if note.startswith("`stages_from_dataset`"))
    assert note == (
        "`stages_from_dataset`: spacing 5 x 1 x 1 mm: strides [[1, 2, 2], [1, 2, 2], [2, 2, 2]], "
        "kernels [[1, 3, 3], [3, 3, 3], [3, 3, 3]], decoder kernels [[1, 3, 3], [3, 3, 3]]"
    )
    adapted = load(kwargs["spec"])
    assert strides_of(adapted) == [[1, 2, 2], [1, 2, 2], [2, 2, 2]]
    assert kwargs["arch_hash"] == arch_hash(adapted) != arch_hash(spec)
    net = ArchSpecNet(1, 3, deep_supervision=True, **kwargs)
    outputs = net(torch.randn(2, 1, 8, 32, 32))
    assert outputs[0].shape == (2, 3, 8, 32, 32)
    outputs[0].square().mean().backward()
    grids = []
    hooks = [
        stage.register_forward_hook(lambda _m, _i, out: grids.append(tuple(out[0].shape[2:])))
        for stage in net.stages
    ]
    net(torch.randn(1, 1, 8, 32, 32))
    assert len(hooks) == 3 and grids == [(8, 16, 16), (8, 8, 8), (4, 4, 4)]


def test_even_spacing_says_so(preprocessed: Path) -> None:
    notes = export_nnunet(stages({"stride": 2}, {"stride": 2}), 901, stages_from_dataset=True).notes
    assert "`stages_from_dataset`: spacing 1.5 x 1 x 1 mm asks for no change" in notes


def test_what_cannot_be_planned_is_refused(refused_export: Callable[..., str]) -> None:
    """Fitting never hides what is wrong with a spec; the refusal is the plan's."""
    spec = stages({"stride": 2, "kernel_size": 1}, {"stride": 2})
    message = refused_export(spec, stages_from_dataset=True)
    assert message.startswith("encoder.stages.0.downsample.kernel_size: ")
    with pytest.raises(SpecError):
        plan(spec)
