"""The best Dice that the resolution of a head allows on one label map."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.network.plan import Plan
from archspec.network.window import far_end
from archspec.overfit.patch import Target, mean_dice
from blocks.base import Grid
from blocks.layers.resize import resize

_STEPS = 200
_RATE = 2.0
_SHARPNESS = 8.0


@dataclass(frozen=True, slots=True)
class Cap:
    """What the best logits at `grid` reach, per class present; `averaged` is what a mean reaches.

    `averaged` takes the label map down to the grid by averaging and up again by interpolation.
    """

    grid: Grid
    scores: Mapping[str, float]
    averaged: float

    @property
    def mean(self) -> float:
        return mean_dice(self.scores)


def head_grid(planned: Plan) -> Grid:
    """Return the grid at which the first output's logits are made, that of the padded patch.

    That of the decoder's features for a head that interpolates, else every voxel: a transposed
    convolution has weights of its own for each. Whether its channels suffice is not asked.
    """
    decoder = planned.spec.decoder
    if decoder.head != "interpolate":
        return planned.padded_size
    return decoder.feature_shapes(planned.decoder_inputs)[0].grid


def resolution_cap(target: Target, grid: Grid, *, padded_size: Grid | None = None) -> Cap:
    """Return the best Dice of logits at `grid` that are interpolated to the patch.

    Where a network pads the patch to `padded_size`, its logits are interpolated to that and
    cropped: so are these, and voxels that padding adds count nowhere.

    The logits themselves are fitted to the label map, without any network: 200 steps of Adam from
    the averaged label map, on nnU-Net's kind of loss, whose softmax grows sharper while the
    cross-entropy fades, so that the end maximises the Dice of hard decisions. The best step counts.

    What is found is reached by some logits, so it is a lower bound of the true maximum, which a
    network may pass by a little. Averaging alone would say too little: at a quarter of the
    resolution a tube of radius 1 fills half of no cell, so it gives 0.00 where fitting gives 0.74;
    for a radius of 2.5 voxels it is 0.28 and 0.94. Twice the steps gained at most 0.01 there. Of
    2 x 2 logits brute force found 0.82 where fitting finds 0.80 (a block wider than a cell), and
    0.79 for 0.70 (a diagonal band narrower than one).
    """
    padded_size = padded_size or target.grid
    if grid == padded_size:
        return Cap(target.grid, dict.fromkeys(target.present, 1.0), 1.0)
    part, coarse = _around_foreground(_padded(target, padded_size), grid)
    wanted, valid = part.wanted[None].float(), part.valid[None, None].float()
    averaged = F.interpolate(wanted * valid, size=coarse, mode="area")
    averaged /= F.interpolate(valid, size=coarse, mode="area").clamp(min=1e-6)
    logits = averaged.clamp(min=1e-2).log()
    if not part.exclusive:
        logits -= (1 - averaged).clamp(min=1e-2).log()
    naive = mean_dice(part.dice(_scored(part, averaged)))
    scores = _fitted(part, logits)
    return Cap(grid, scores, naive)


def _fitted(target: Target, start: Tensor) -> dict[str, float]:
    """Return the best scores on the way of fitting logits (1, K, *coarse) to the target."""
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], _RATE, betas=(0.9, 0.99))
    best: dict[str, float] = {}
    for step in range(_STEPS + 1):
        done = step / _STEPS
        optimizer.param_groups[0]["lr"] = _RATE * (1 - done) ** 0.9
        full = resize(logits, target.grid)
        scores = target.dice(full[0].detach())
        if not best or mean_dice(scores) > mean_dice(best):
            best = scores
        sharp = _soft_dice(target, full * (1 + _SHARPNESS * done))
        loss = (1 - done) * _cross_entropy(target, full) - sharp
        (logits.grad,) = torch.autograd.grad(loss, [logits])
        optimizer.step()
    return best


def _soft_dice(target: Target, logits: Tensor) -> Tensor:
    probable = logits.softmax(1)[:, 1:] if target.exclusive else logits.sigmoid()
    wanted = target.foreground.float()
    kept = (probable[0] * target.valid).flatten(1)
    hits = (kept * wanted.flatten(1)).sum(1)
    scores = 2 * hits / (kept.sum(1) + wanted.flatten(1).sum(1) + 1e-5)
    return scores[wanted.flatten(1).any(1)].mean()


def _cross_entropy(target: Target, logits: Tensor) -> Tensor:
    if target.exclusive:
        losses = F.cross_entropy(logits, target.wanted.long().argmax(0)[None], reduction="none")
    else:
        wanted = target.wanted[None].float()
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
    return losses[0][target.valid].mean()


def _scored(target: Target, averaged: Tensor) -> Tensor:
    """Return averaged masks at full size, as logits that `Target.dice` can decide."""
    full = resize(averaged, target.grid)[0]
    return full if target.exclusive else full - 0.5


def _padded(target: Target, size: Grid) -> Target:
    """Return the target of the padded patch, whose far end counts nowhere."""
    if size == target.grid:
        return target
    end = far_end(target.grid, size)
    wanted = F.pad(target.wanted, end)
    if target.exclusive:
        wanted[0] |= ~wanted.any(0)
    return Target(wanted, F.pad(target.valid, end), target.names, target.exclusive)


def _around_foreground(target: Target, grid: Grid) -> tuple[Target, Grid]:
    """Return the part of the target that holds the foreground, in whole cells of the grid.

    Two cells of background on every side keep what is left out out of the interpolation; the rest
    is background that any logits get right.
    """
    gaps = [n // cells for n, cells in zip(target.grid, grid, strict=True)]
    places = target.foreground.any(0).nonzero()
    low, high = places.min(0).values.tolist(), places.max(0).values.tolist()
    starts = [max(first // gap - 2, 0) for first, gap in zip(low, gaps, strict=True)]
    stops = [min(last // gap + 3, cells) for last, gap, cells in zip(high, gaps, grid, strict=True)]
    voxels = tuple(slice(a * gap, b * gap) for a, b, gap in zip(starts, stops, gaps, strict=True))
    part = Target(
        target.wanted[(slice(None), *voxels)], target.valid[voxels], target.names, target.exclusive
    )
    return part, tuple(b - a for a, b in zip(starts, stops, strict=True))
