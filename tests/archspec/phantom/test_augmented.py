"""What nnU-Net's loader and augmentation leave of a phantom's evidence, and of its labels.

The evidence travels as a second segmentation channel through the batches that trials train on. A
patch holds all evidence if it shows every mark and none at its border.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archspec.phantom.task import Task
from archspec.phantom.tasks import TASKS

pytest.importorskip("nnunetv2")

NUM_CASES = 24
LEVELS = [(name, level) for name, task in TASKS.items() if task.decided for level in task.levels]
HARDEST = [(name, task.levels[-1]) for name, task in TASKS.items() if task.decided]


class Cases:
    """Stand in for a preprocessed dataset: the volumes as nnU-Net would have normalised them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.identifiers = [str(index) for index in range(NUM_CASES)]
        self.cases = {
            name: task.sample(np.random.default_rng([5, int(name)])) for name in self.identifiers
        }

    def load_case(self, name: str) -> tuple[Any, Any, None, dict[str, Any]]:
        image, label, evidence = self.cases[name]
        image = (image - image.mean()) / image.std()
        places = {
            value: np.insert(np.argwhere(label == value), 0, 0, axis=1)
            for value in self.task.labels.values()
            if value
        }
        segmentation = np.stack([label, evidence]).astype(np.int16)
        return image, segmentation, None, {"class_locations": places}


def patches(task: Task, num_patches: int, *, stock: bool) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield label and evidence of augmented patches as large as the volume."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    from search.trials.nnunet_data import TrialData

    content = {} if stock else {"archspec": task.metadata()}
    data = object.__new__(TrialData)
    data.dataset = SimpleNamespace(dataset_json=content)  # type: ignore[assignment]
    data.configuration = SimpleNamespace(patch_size=task.shape, use_mask_for_norm=[False])
    data.labels = LabelManager(dict(task.labels), None)
    data.folder, data.train_cases, data.batch_size = "", [], 2
    data.load = lambda cases: Cases(task)  # type: ignore[method-assign, assignment]
    np.random.seed(1)
    batches = data.batches([[1, 1, 1]], deep_supervision=False)
    for _ in range(num_patches // 2):
        _, target = next(batches)
        yield from np.asarray(target)


def whole(evidence: NDArray[Any], num_marks: int) -> bool:
    """Say whether every mark is in sight and none is cut by the border."""
    inner = evidence[1:-1, 1:-1, 1:-1]
    return (
        np.count_nonzero(inner) == np.count_nonzero(evidence)
        and len(np.unique(inner)) == num_marks + 1
    )


def follows_the_rule(task: Task, label: NDArray[Any], evidence: NDArray[Any]) -> bool:
    """Compare the label at each decided mark with the rule, applied to the marks as they lie now.

    A tenth of the voxels may differ: label and marks are interpolated apart from each other.
    """
    answers = task.decide(evidence)
    return bool(answers) and all(
        np.mean(label[evidence == mark] == task.labels[name]) > 0.9
        for mark, name in answers.items()
    )


def check(name: str, level: str, num_patches: int) -> None:
    task = TASKS[name].at_level(level)
    num_marks = len(np.unique(task.sample(np.random.default_rng(0)).evidence)) - 1
    found = list(patches(task, num_patches, stock=False))
    kept = [whole(evidence, num_marks) for _, evidence in found]
    assert np.mean(kept) >= 0.995, f"{np.mean(kept):.4f} of {len(kept)}"
    right = [
        follows_the_rule(task, *patch) for patch, good in zip(found, kept, strict=True) if good
    ]
    assert all(right), f"{np.mean(right):.4f} of {len(right)}"


@pytest.mark.parametrize(("name", "level"), HARDEST)
def test_patches_hold_all_evidence_and_right_labels(name: str, level: str) -> None:
    check(name, level, 20)


@pytest.mark.long
@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_four_hundred_patches_hold_all_evidence(name: str, level: str) -> None:
    check(name, level, 400)


@pytest.mark.long
@pytest.mark.parametrize(("name", "level"), HARDEST)
def test_labels_are_right_wherever_stock_augmentation_keeps_the_evidence(
    name: str, level: str
) -> None:
    task = TASKS[name].at_level(level)
    num_marks = len(np.unique(task.sample(np.random.default_rng(0)).evidence)) - 1
    found = [p for p in patches(task, 100, stock=True) if whole(p[1], num_marks)]
    assert len(found) > 20
    assert all(follows_the_rule(task, *patch) for patch in found)
