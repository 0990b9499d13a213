"""Windows of a volume: how many there are, the one with most classes, and cutting one out."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archspec.nnunet.dataset import PreprocessedDataset


def best_window(
    masks: NDArray[np.bool_], size: tuple[int, ...], *, steps_per_window: int = 4
) -> tuple[int, ...]:
    """Return the start (D, H, W) of the window with most of the masks (K, D, H, W) in it.

    Ties go to the larger share of every mask, and then to the window around the foreground's
    centre. Windows lie a quarter of their size apart, so a nearby one may be slightly better; a
    start is negative where the volume is smaller than the window.
    """
    shape = masks.shape[1:]
    axes = [_starts(n, w, max(w // steps_per_window, 1)) for n, w in zip(shape, size, strict=True)]
    counts = np.stack([_window_sums(mask, axes, size) for mask in masks])
    totals = masks.reshape(len(masks), -1).sum(1)
    there = totals > 0
    shares = (counts[there] / totals[there, None, None, None]).mean(0)
    centre = np.argwhere(masks.any(0)).mean(0)
    away = sum(
        np.abs(start + w / 2 - c).reshape([-1 if i == axis else 1 for i in range(3)]) / n
        for axis, (start, w, c, n) in enumerate(zip(axes, size, centre, shape, strict=True))
    )
    score = (counts > 0).sum(0) + 0.9 * shares - 1e-3 * away / 3
    index = np.unravel_index(int(score.argmax()), score.shape)
    return tuple(int(starts[i]) for starts, i in zip(axes, index, strict=True))


def median_windows(dataset: PreprocessedDataset) -> int | None:
    """Return the windows, overlapping by half, that a case of the median shape takes.

    None where plans name no shape, and in 2-D, where they do not name the slices.
    """
    shape = dataset.settings.get("median_image_size_in_voxels")
    patch = dataset.patch_size
    if shape is None or len(patch) < 3 or len(shape) != len(patch):
        return None
    return count_windows(shape, patch)


def count_windows(shape: Sequence[float], size: Sequence[int]) -> int:
    """Return how many windows cover a volume, overlapping by half, as nnU-Net predicts one.

    The volume is padded to a window's size; mirroring is not counted.

    Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/inference/sliding_window_prediction.py (2.8.1),
    `compute_steps_for_sliding_window` at its default step size, 0.5.
    """
    return math.prod(
        math.ceil(max(n - w, 0) / (w / 2)) + 1 for n, w in zip(shape, size, strict=True)
    )


def crop(
    volume: NDArray[Any], start: tuple[int, ...], size: tuple[int, ...], *, fill: int
) -> NDArray[Any]:
    """Return the window of a volume, `fill` where it reaches beyond the volume."""
    inside = [
        slice(max(s, 0), min(s + w, n)) for s, w, n in zip(start, size, volume.shape, strict=True)
    ]
    around = [
        (part.start - s, s + w - part.stop) for part, s, w in zip(inside, start, size, strict=True)
    ]
    return np.pad(volume[tuple(inside)], around, constant_values=fill)


def _starts(length: int, window: int, step: int) -> NDArray[np.int64]:
    if length <= window:
        return np.array([-((window - length) // 2)])
    return np.unique([*range(0, length - window, step), length - window])


def _window_sums(
    mask: NDArray[np.bool_], axes: list[NDArray[np.int64]], size: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return how many voxels of the mask every window holds, by an integral volume."""
    integral = np.pad(mask.astype(np.int64), ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2)
    ends = [
        (np.clip(start, 0, n), np.clip(start + w, 0, n))
        for start, w, n in zip(axes, size, mask.shape, strict=True)
    ]
    total = np.zeros([len(start) for start in axes], np.int64)
    for corner in product((0, 1), repeat=3):
        part = integral[np.ix_(*(end[side] for end, side in zip(ends, corner, strict=True)))]
        total += part if sum(corner) % 2 else -part
    return total
