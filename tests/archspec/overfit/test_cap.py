"""What a head's resolution allows, on thin and thick structures, by fitting and by brute force."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from archspec.network.plan import plan
from archspec.overfit.cap import head_grid, resolution_cap
from archspec.overfit.patch import Target, mean_dice
from archspec.spec.load import load
from blocks.layers.resize import resize

PATCH = (12, 16, 24)
LABELS = {"background": 0, "vessel": 1}


def tube(radius: float) -> NDArray[np.uint8]:
    """Return a tube that winds along the last axis: radius 1 is a plus of five voxels across."""
    depth, height, width = np.indices(PATCH)
    turn = 2 * np.pi * width / PATCH[2]
    away = (depth - 6 - 2 * np.sin(turn)) ** 2 + (height - 8 - 4 * np.cos(turn)) ** 2
    return (away <= radius**2).astype(np.uint8)


@pytest.mark.parametrize(("radius", "low", "high"), [(1.0, 0.6, 0.9), (2.5, 0.88, 0.97)])
def test_quarter_resolution_loses_thin_structures(radius: float, low: float, high: float) -> None:
    target = Target.of(tube(radius), LABELS)
    quarter = resolution_cap(target, tuple(n // 4 for n in PATCH))
    half = resolution_cap(target, tuple(n // 2 for n in PATCH))
    assert low < quarter.mean < high
    assert quarter.averaged < 0.5 * quarter.mean
    assert half.mean > quarter.mean + 0.02
    assert resolution_cap(target, PATCH).mean == 1.0


@pytest.mark.parametrize("regions", [False, True])
def test_padding_takes_nothing_and_gives_nothing(regions: bool) -> None:
    """At the patch's end cells that are partly inside can be filled; those outside cost nothing."""
    labels: dict[str, object] = {"background": 0, "vessel": [1] if regions else 1}
    whole = tube(2.5)[:, :, 3]
    cut = whole[:8, :14]
    assert cut[-1].any()
    target = Target.of(cut, labels)
    cap = resolution_cap(target, (3, 4), padded_size=(12, 16))
    assert cap.grid == (3, 4) and 0.7 < cap.mean < 1
    inside = np.pad(np.ones(cut.shape, bool), ((0, 4), (0, 2)))
    ignoring = Target.of(np.where(inside, whole, 2), {**labels, "ignore": 2})
    same = resolution_cap(ignoring, (3, 4))
    assert (cap.mean, cap.averaged) == pytest.approx((same.mean, same.averaged), abs=1e-6)
    far = resolution_cap(target, (6, 8), padded_size=(24, 32))
    assert far.mean == pytest.approx(cap.mean, abs=0.02), "whole cells of padding change nothing"
    assert resolution_cap(target, (12, 16), padded_size=(12, 16)).mean == 1.0


def test_thick_structures_lose_little() -> None:
    assert resolution_cap(Target.of(tube(5.0), LABELS), (3, 4, 6)).mean > 0.95


def _band() -> NDArray[np.uint8]:
    return (np.abs(np.subtract(*np.indices((8, 8)))) <= 1).astype(np.uint8)


def _block() -> NDArray[np.uint8]:
    return np.pad(np.ones((5, 5), np.uint8), ((2, 1), (1, 2)))


@pytest.mark.parametrize(("shape", "share"), [(_band, 0.85), (_block, 0.95)])
def test_fitting_finds_about_what_brute_force_finds(
    shape: Callable[[], NDArray[np.uint8]], share: float
) -> None:
    """Of four differences of logits in 2-D only the ratios matter, few enough to draw them all."""
    target = Target.of(shape(), LABELS)
    drawn = torch.randn(200_000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    predicted = (resize(drawn, (8, 8)) > 0).flatten(1)
    wanted = target.wanted[1].flatten()
    dice = 2 * (predicted & wanted).sum(1) / (predicted.sum(1) + wanted.sum())
    best = float(dice.max())
    assert 0.5 < best < 0.95
    assert share * best < resolution_cap(target, (2, 2)).mean < best + 0.01


def test_the_part_around_the_foreground_stands_for_the_whole() -> None:
    """Far background changes nothing: the same structure in a larger patch has the same cap."""
    wide = np.zeros((28, 48, 24), np.uint8)
    wide[8:20, 16:32] = tube(1.5)
    small = resolution_cap(Target.of(tube(1.5), LABELS), (3, 4, 6))
    large = resolution_cap(Target.of(wide, LABELS), (7, 12, 6))
    assert large.mean == pytest.approx(small.mean, abs=0.02)


def test_regions_and_several_classes() -> None:
    label = tube(4.0) + tube(2.0)
    classes = Target.of(label, {"background": 0, "rim": 1, "core": 2})
    regions = Target.of(label, {"background": 0, "whole": [1, 2], "core": 2})
    for target, names in ((classes, ["rim", "core"]), (regions, ["whole", "core"])):
        cap = resolution_cap(target, (3, 4, 6))
        assert list(cap.scores) == names
        assert 0.6 < cap.mean < 0.99
        assert cap.mean == pytest.approx(mean_dice(cap.scores))


@pytest.mark.parametrize(
    ("head", "grid"), [("interpolate", (4, 4, 4)), ("transpose", (16, 16, 16))]
)
def test_head_grid(head: str, grid: tuple[int, ...]) -> None:
    stages = [
        {"width": 4, "mixer": {"kind": "conv"}, "downsample": {"stride": s, "kernel_size": s}}
        for s in (4, 2)
    ]
    spec = load(
        {
            "name": "head",
            "patch_size": [16, 16, 16],
            "encoder": {"stages": stages},
            "decoder": {"kind": "mlp", "head": head},
        }
    )
    assert head_grid(plan(spec)) == grid
