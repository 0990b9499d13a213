"""Check what is special about each phantom task: its knob does what it says."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from archspec.phantom.dataset import write_dataset
from archspec.phantom.few_cases import DataTask
from archspec.phantom.mixed_mri import MixedMRITask
from archspec.phantom.recall import DOT_PLACES, FIRST_TARGET, MAX_PAIRS, RecallTask
from archspec.phantom.skip_noise import SkipNoiseTask
from archspec.phantom.task import Task, Volume
from archspec.phantom.tasks import TASKS
from archspec.phantom.trace import FIRST_STRAND, TraceTask
from blocks.base import SpecError


@cache
def sampled(task: Task, index: int) -> Volume:
    return task.sample(np.random.default_rng([23, index]))


def test_axis_levels_share_their_images() -> None:
    images = [sampled(TASKS["axis"].at_level(level), 3).image for level in TASKS["axis"].levels]
    assert all(np.array_equal(images[0], image) for image in images)


@pytest.mark.parametrize("level", TASKS["detail"].levels)
def test_detail_has_the_thickness_of_its_level(level: str) -> None:
    """A lesion holds about as many voxels as a ball of that radius; a tube's section a disc."""
    task = TASKS["detail"].at_level(level)
    radius = float(level)
    labels = [sampled(task, index).label for index in range(4)]
    tubes = np.mean([np.count_nonzero(label[:, :, 32] == 1) for label in labels]) / 4
    assert 0.6 * np.pi * radius**2 < tubes < 2.2 * np.pi * radius**2
    lesions = np.mean([np.count_nonzero(label == 2) for label in labels])
    ball = 4 / 3 * np.pi * radius**3
    assert 0.8 * 16 * ball < lesions + 1 and lesions < 1.3 * 16 * ball


def read_item(
    image: NDArray[np.float32], evidence: NDArray[np.uint8], mark: int
) -> tuple[int, ...]:
    """Return the dots that the image shows around a mark: bright 1, dark 0; the value comes last.

    An item without a value shows its body there, which counts as dark.
    """
    depth, height, width = np.argwhere(evidence == mark).mean(axis=0)
    return tuple(
        int(image[round(depth), round(height + by_height), round(width + by_width)] > 2.0)
        for by_height, by_width in (*DOT_PLACES, (0.0, 0.0))
    )


@pytest.mark.parametrize("pairs", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_recall_is_answered_by_matching_keys(pairs: int, axes: tuple[int, ...]) -> None:
    """Read keys and values off the image, flipped or not; the matching entry's value is right."""
    task = RecallTask(pairs=pairs, noise=0.0)
    for index in range(2):
        (image,), label, evidence = (
            np.flip(part, [axis - 3 for axis in axes]) for part in sampled(task, index)
        )
        marks = np.unique(evidence)[1:]
        entries = [read_item(image, evidence, mark) for mark in marks if mark < FIRST_TARGET]
        values = {key: value for *dots, value in entries for key in [tuple(dots)]}
        assert len(values) == pairs
        for mark in marks[marks >= FIRST_TARGET]:
            *dots, _ = read_item(image, evidence, mark)
            wanted = task.labels["on" if values[tuple(dots)] else "off"]
            assert (label[evidence == mark] == wanted).all()


def test_recall_values_are_balanced() -> None:
    """Half of the values are bright, so a count over the whole volume tells nothing."""
    for pairs in (2, 4, 16):
        marks = np.unique(sampled(RecallTask(pairs=pairs), 1).evidence)
        bright = [mark for mark in range(1, 2 * MAX_PAIRS, 2) if mark in marks]
        assert len(bright) == pairs / 2


@pytest.mark.parametrize("level", TraceTask.levels)
def test_trace_winds_by_its_level(level: str) -> None:
    """The vessels are whole, apart, and turn by `turns` - 1 to `turns` half turns."""
    task = TraceTask.at_level(level)
    for index in range(3):
        _, _, evidence = sampled(task, index)
        strand = np.argwhere(evidence == FIRST_STRAND)
        for mark in (FIRST_STRAND, FIRST_STRAND + 1):
            _, num_pieces = ndimage.label(evidence == mark, np.ones((3, 3, 3)))
            assert num_pieces == 1
        _, num_apart = ndimage.label(evidence >= FIRST_STRAND, np.ones((3, 3, 3)))
        assert num_apart == 2
        rope = np.argwhere(evidence >= FIRST_STRAND)[:, :2]
        middle = (rope.max(axis=0) + rope.min(axis=0)) / 2
        sections = range(strand[:, 2].min() + 2, strand[:, 2].max() - 1)
        places = [strand[strand[:, 2] == at][:, :2].mean(axis=0) - middle for at in sections]
        turned = np.unwrap([np.arctan2(depth, height) for depth, height in places])
        half_turns = abs(turned[-1] - turned[0]) / np.pi
        assert task.turns - 1 - 0.5 < half_turns < task.turns + 0.3


def test_trace_refuses_vessels_that_touch() -> None:
    with pytest.raises(SpecError, match="voxels between them at 9 half turns"):
        TraceTask(turns=9)
    with pytest.raises(SpecError, match=r"3 vessels of radius 1\.6"):
        TraceTask(turns=6, decoys=2)
    assert TraceTask(turns=1, decoys=2).level is None


def test_skip_noise_is_drowned_in_speckle() -> None:
    """The speckle's deviation exceeds the contrast at the upper levels; both organs look alike."""
    for level in SkipNoiseTask.levels[1:]:
        (image,), label, _ = sampled(SkipNoiseTask.at_level(level), 0)
        contrast = image[label > 0].mean() - image[label == 0].mean()
        assert 0.2 < contrast < 0.6
        assert image[label == 0].std() > contrast
    counts = np.bincount(label.ravel())
    assert abs(counts[1] - counts[2]) < 0.1 * counts[1]


def test_data_levels_share_test_cases_and_nest(tmp_path: Path) -> None:
    """Five folds leave the level's number for training; the volumes do not depend on it."""
    tasks = [DataTask.at_level(level) for level in DataTask.levels]
    assert [task.num_cases * 4 // 5 for task in tasks] == [4, 8, 16, 32, 64]
    for index in (1, 9001):
        images = [task.sample(np.random.default_rng([0, index])).image for task in tasks]
        assert all(np.array_equal(images[0], image) for image in images)
    with pytest.raises(SpecError, match="level 8 of task data has 10 cases, got 9"):
        write_dataset(tmp_path / "Dataset901_Data", tasks[1], num_cases=9, num_test_cases=0, seed=0)


def test_mri_tumour_is_nested_and_needs_several_channels() -> None:
    """The core lies in the rim, the rim in the oedema; no channel alone orders the parts alike."""
    image, label, _ = sampled(MixedMRITask(), 0)
    ncr, et, ed = (label == MixedMRITask.labels[name] for name in ("ncr", "et", "ed"))
    assert not (ndimage.binary_dilation(ncr) & ed).any()
    assert not (ndimage.binary_dilation(ncr | et) & (label == 0)).any()
    means = np.array([[channel[part].mean() for part in (ncr, et, ed)] for channel in image])
    assert len({tuple(np.argsort(row)) for row in means}) >= 3
