"""The patch that is always cut from a case, and how logits are scored on it."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archspec.nnunet.dataset import find_dataset
from archspec.nnunet.windows import best_window, count_windows, crop
from archspec.overfit.patch import Target, fixed_patch
from blocks.base import SpecError

AddCase = Callable[[str, Any], None]


def test_window_holds_most_classes() -> None:
    masks = np.zeros((3, 16, 40, 40), bool)
    masks[0, 4:8, 2:20, 2:20] = True
    masks[1, 4:8, 30:34, 30:34] = True
    masks[2, 6:8, 34:38, 26:30] = True
    start = best_window(masks, (8, 16, 16))
    window = tuple(slice(s, s + n) for s, n in zip(start, (8, 16, 16), strict=True))
    inside = [int(mask[window].sum()) / int(mask.sum()) for mask in masks]
    assert inside[1] == inside[2] == 1.0
    assert best_window(masks, (8, 16, 16)) == start


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_as_many_as_nnunet_predicts(seed: int) -> None:
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    rng = np.random.default_rng(seed)
    patch, shape = rng.integers(4, 40, 3), rng.integers(4, 160, 3)
    padded = tuple(np.maximum(patch, shape).tolist())
    steps = compute_steps_for_sliding_window(padded, tuple(patch.tolist()), 0.5)
    assert count_windows(shape.tolist(), patch.tolist()) == math.prod(map(len, steps))


def test_window_is_around_a_single_structure() -> None:
    masks = np.zeros((1, 64, 64, 64), bool)
    masks[0, 30:34, 30:34, 30:34] = True
    assert best_window(masks, (32, 32, 32)) == (16, 16, 16)


def test_window_sums_are_counts() -> None:
    """The window with most voxels is the one that counting every window finds."""
    rng = np.random.default_rng(0)
    mask = rng.random((1, 5, 7, 9)) < 0.1
    size = (2, 3, 4)
    start = best_window(mask, size)
    best = max(
        int(mask[0, d : d + 2, h : h + 3, w : w + 4].sum())
        for d in range(4)
        for h in range(5)
        for w in range(6)
    )
    assert int(crop(mask[0], start, size, fill=0).sum()) == best


def test_small_volumes_are_centred_and_padded() -> None:
    masks = np.ones((1, 4, 8, 8), bool)
    assert best_window(masks, (8, 8, 16)) == (-2, 0, -4)
    cut = crop(np.arange(4).reshape(4, 1, 1), (-2, 0, 0), (8, 1, 1), fill=-1)
    assert cut[:, 0, 0].tolist() == [-1, -1, 0, 1, 2, 3, -1, -1]


def test_classes_are_scored_where_they_are() -> None:
    label = np.array([[0, 1, 1, 2], [0, 1, 4, -1]])
    target = Target.of(label, {"background": 0, "b": 2, "a": 1, "c": 3, "ignore": 4})
    assert target.names == ("a", "b", "c")
    assert target.present == ("a", "b")
    assert target.valid.tolist() == [[True] * 4, [True, True, False, True]]
    chosen = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 0]])
    logits = torch.nn.functional.one_hot(chosen, 4).permute(2, 0, 1).float()
    assert target.dice(logits) == {"a": 2 * 2 / (2 + 3), "b": 2 * 1 / (2 + 1)}


def test_regions_overlap() -> None:
    label = np.array([[0, 1, 2, 2]])
    target = Target.of(label, {"background": 0, "whole": [1, 2], "core": 2})
    assert not target.exclusive
    logits = torch.tensor([[[-1.0, 1, 1, -1]], [[-1.0, -1, 1, 1]]])
    assert target.dice(logits) == {"whole": 2 * 2 / (2 + 3), "core": 1.0}


def test_nothing_predicted_is_zero() -> None:
    target = Target.of(np.array([[0, 1]]), {"background": 0, "a": 1})
    assert target.dice(torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])) == {"a": 0.0}
    assert math.isclose(target.dice(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))["a"], 1.0)


def test_patch_of_a_case(preprocessed: Path, add_case: AddCase) -> None:
    label = np.zeros((20, 24, 24), np.int16)
    label[14:18, 10:14, 4:8], label[14:18, 10:14, 12:20], label[0] = 1, 2, -1
    add_case("empty", np.zeros((20, 24, 24), np.int16))
    add_case("lesion", label)
    dataset = find_dataset(901)
    patch = fixed_patch(dataset, (16, 16, 16))
    assert patch.case == "lesion"
    assert patch.image.shape == (1, 16, 16, 16)
    start = patch.start
    window = tuple(slice(s, s + 16) for s in start)
    assert torch.equal(patch.target.wanted[2], torch.from_numpy(label[window] == 2))
    assert patch.target.present == ("left", "right")
    # the fixture's image is the label plus one, so that both are seen to be cut alike
    assert np.array_equal(patch.image[0].numpy(), label[window] + 1)
    again = fixed_patch(dataset, (16, 16, 16), case="lesion")
    assert again.start == start
    assert torch.equal(again.image, patch.image)


def test_slice_of_a_case(preprocessed: Path, add_case: AddCase) -> None:
    label = np.zeros((4, 24, 24), np.int16)
    label[2, 5:9, 5:9], label[3, 5:6, 5:6] = 1, 2
    add_case("flat", label)
    patch = fixed_patch(find_dataset(901), (32, 16))
    assert patch.image.shape == (1, 32, 16)
    assert patch.start[:2] in ((2, -4), (3, -4))
    assert patch.target.grid == (32, 16)


def test_refusals(preprocessed: Path, add_case: AddCase) -> None:
    dataset = find_dataset(901)
    with pytest.raises(SpecError, match=r"holds no preprocessed cases; run nnUNetv2_preprocess"):
        fixed_patch(dataset, (16, 16, 16))
    cascade = dataclasses.replace(dataset, settings={"previous_stage": "3d_lowres"})
    with pytest.raises(SpecError, match="second half of a cascade"):
        fixed_patch(cascade, (16, 16, 16))
    add_case("case_0001", np.zeros((16, 16, 16), np.int16))
    with pytest.raises(SpecError, match=r"not among the 1 cases of Dataset901.*e.g. case_0001"):
        fixed_patch(dataset, (16, 16, 16), case="case_1")
    for case in (None, "case_0001"):
        with pytest.raises(SpecError, match="has no foreground"):
            fixed_patch(dataset, (16, 16, 16), case=case)
