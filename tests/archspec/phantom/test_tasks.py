"""Check every phantom task at every level: its knob, its labels, its controls, and for leaks."""

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from archspec.phantom.augmentation import AugmentationLimits
from archspec.phantom.task import Task, Volume
from archspec.phantom.tasks import TASKS, table, task_class
from blocks.base import SpecError

LEVELS = [(name, level) for name, task in TASKS.items() for level in task.levels]
DECIDED = [(name, level) for name, level in LEVELS if TASKS[name].decided]
HARDEST = [(name, task.levels[-1]) for name, task in TASKS.items() if task.decided]


NUM_MARKS = 4
"""Decided marks looked at in each volume."""


@lru_cache(maxsize=100)
def sampled(task: Task, index: int) -> Volume:
    return task.sample(np.random.default_rng([17, index]))


def deciding(task: Task, evidence: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the marks that decide others; all of them where each decides its own label."""
    others = (evidence > 0) & ~np.isin(evidence, list(task.decide(evidence)))
    return others if others.any() else evidence > 0


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_volumes_are_sane(name: str, level: str) -> None:
    """Whole volumes without NaN or 0, every label there and none too large."""
    task = TASKS[name].at_level(level)
    assert task.level == level
    assert task.metadata()["level"] == level
    volumes = [sampled(task, index) for index in range(4)]
    for image, label, evidence in volumes:
        assert image.shape == (len(task.channels), *task.shape)
        assert label.shape == evidence.shape == task.shape
        assert (image.dtype, label.dtype, evidence.dtype) == (np.float32, np.uint8, np.uint8)
        assert np.isfinite(image).all()
        # nnU-Net takes zeros at the border for padding; 30 is what an int16 file can hold
        assert image.min() > 0.0 and image.max() < 30
        assert set(np.unique(label)) <= set(task.labels.values())
        assert np.mean(label == 0) > 0.5
    together = np.stack([volume.label for volume in volumes])
    for value in task.labels.values():
        assert np.mean(together == value) > 2e-4


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_evidence_decides_every_decided_label(name: str, level: str) -> None:
    task = TASKS[name].at_level(level)
    for index in range(4):
        _, label, evidence = sampled(task, index)
        decided = [task.labels[label_name] for label_name in task.decided]
        answers = task.decide(evidence)
        for mark, label_name in answers.items():
            assert np.mean(label[evidence == mark] == task.labels[label_name]) > 0.99
        marked = np.isin(evidence, list(answers))
        assert np.array_equal(marked, np.isin(label, decided))
        assert bool(task.decided) == evidence.any()


@pytest.mark.parametrize(("name", "level"), DECIDED)
def test_erasing_takes_the_evidence_and_no_label(name: str, level: str) -> None:
    """The image changes near deciding marks only, and the labels not at all."""
    task = TASKS[name].at_level(level)
    erased = replace(task, control="erased")
    for index in range(2):
        before, after = sampled(task, index), sampled(erased, index)
        assert np.array_equal(before.label, after.label)
        assert np.array_equal(before.evidence, after.evidence)
        changed = np.abs(before.image - after.image)[0] > 0.05
        assert changed.any()
        places, marks = np.argwhere(changed), np.argwhere(deciding(task, before.evidence))
        assert (places.min(axis=0) >= marks.min(axis=0) - 5).all()
        assert (places.max(axis=0) <= marks.max(axis=0) + 5).all()


@pytest.mark.parametrize(("name", "level"), DECIDED)
def test_oracle_gives_the_answer_and_changes_nothing_else(name: str, level: str) -> None:
    task = TASKS[name].at_level(level)
    oracle = replace(task, control="oracle")
    assert oracle.channels == ("MR", "oracle")
    for index in range(2):
        (image,), label, _ = sampled(task, index)
        (same, answer), again, _ = sampled(oracle, index)
        assert np.array_equal(image, same)
        assert np.array_equal(label, again)
        for label_name, value in zip(task.decided, (1.0, -1.0), strict=True):
            assert (answer[label == task.labels[label_name]] == value).all()
        assert answer.std() > 0.1  # a constant channel would vanish when nnU-Net normalises it


def places_to_look(task: Task, evidence: NDArray[np.uint8]) -> dict[int, NDArray[np.int64]]:
    """Return voxels of some decided marks: deep inside if any are, else far from the evidence."""
    size = task.local_radius
    from_evidence = KDTree(np.argwhere(deciding(task, evidence)))
    boxes = ndimage.find_objects(evidence)
    found = {}
    for mark in list(task.decide(evidence))[:NUM_MARKS]:
        box = boxes[mark - 1]
        corner = [part.start for part in box]
        marked = evidence[box] == mark
        inside = ndimage.minimum_filter(marked, 2 * size + 1, mode="constant")
        places = np.argwhere(inside if inside.any() else marked) + corner
        away, _ = from_evidence.query(places)
        found[mark] = places if inside.any() else places[away > 3 * size]
    return found


def neighbourhoods(task: Task, num_volumes: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return statistics of patches around decided voxels, one per mark, and whether the first."""
    size = task.local_radius
    features, answers = [], []
    for index in range(num_volumes):
        volume = sampled(task, index)
        rng = np.random.default_rng(index)
        named = task.decide(volume.evidence)
        for mark, places in places_to_look(task, volume.evidence).items():
            centre = rng.choice(places)
            box = tuple(slice(max(0, at - size), at + size + 1) for at in centre)
            row = [*centre]
            for channel in volume.image:
                part = channel[box]
                slopes = [np.abs(np.diff(part, axis=axis)).mean() for axis in range(3)]
                row += [part.mean(), part.std(), part.min(), part.max(), *slopes]
            features.append(row)
            answers.append(named[mark] == task.decided[0])
    return np.array(features, float), np.array(answers)


def accuracy(features: NDArray[np.float64], answers: NDArray[np.bool_]) -> float:
    """Return the accuracy on each half of a classifier fitted to the other half of the volumes.

    Logistic regression would do; ridge on features and their squares needs no solver.
    """
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    design = np.concatenate([np.ones((len(scaled), 1)), scaled, scaled**2], axis=1)
    signs = np.where(answers, 1.0, -1.0)
    half = len(answers) // 2
    right = []
    for fit, test in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        gram = design[fit].T @ design[fit] + 5.0 * np.eye(design.shape[1])
        weights = np.linalg.solve(gram, design[fit].T @ signs[fit])
        right.append(np.mean((design[test] @ weights > 0) == answers[test]))
    return float(np.mean(right))


def check_neighbourhoods(name: str, level: str, num_volumes: int) -> None:
    """Intensities, edges and places around a target leave it at chance; the oracle does not.

    Four standard errors are allowed, for the first mark's answer being a fair coin as well.
    """
    task = TASKS[name].at_level(level)
    features, answers = neighbourhoods(task, num_volumes)
    first = answers[:: len(answers) // num_volumes]
    assert abs(np.mean(first) - 0.5) < 4 * 0.5 / np.sqrt(num_volumes)
    error = 0.5 / np.sqrt(len(answers))
    assert abs(accuracy(features, answers) - 0.5) < 4 * error
    assert accuracy(*neighbourhoods(replace(task, control="oracle"), 30)) > 0.85


@pytest.mark.parametrize(("name", "level"), HARDEST)
def test_neighbourhoods_do_not_tell_the_answer(name: str, level: str) -> None:
    check_neighbourhoods(name, level, 40)


@pytest.mark.long
@pytest.mark.parametrize(("name", "level"), DECIDED)
def test_many_neighbourhoods_do_not_tell_the_answer(name: str, level: str) -> None:
    check_neighbourhoods(name, level, 300)


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_level_is_its_knobs_not_what_all_tasks_share(name: str, level: str) -> None:
    task = replace(TASKS[name].at_level(level), noise=0.05, spacing=(3.0, 1.0, 1.0))
    assert task.level == level


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_limits_survive_the_file(name: str, level: str) -> None:
    task = TASKS[name].at_level(level)
    content = json.loads(json.dumps({"archspec": task.metadata()}))
    assert AugmentationLimits.of(content) == task.limits
    assert (task.limits is None) == (not task.decided)
    assert AugmentationLimits.of({"labels": {"background": 0}}) is None


def test_names_and_levels_are_refused() -> None:
    with pytest.raises(SpecError, match=r"task='reech': not a task.*did you mean 'reach'"):
        task_class("reech")
    for task in TASKS.values():
        with pytest.raises(SpecError, match=f"level: task {task.name} has .*got '17.5'"):
            task.at_level("17.5")
        if not task.decided:
            with pytest.raises(SpecError, match="no far evidence"):
                replace(task.at_level(task.levels[0]), control="erased")
    assert [line.split()[0] for line in table().splitlines()[::2]] == list(TASKS)
