"""One patch of a preprocessed dataset, always the same, and how well logits match its labels."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archspec.nnunet.check_data import PATCHES, check_files, preprocessed_cases
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.voxels import CheckedCases, FirstReads
from archspec.nnunet.windows import best_window, crop
from archspec.scoring.dice import dice_of_sizes, mean
from archspec.scoring.labels import scored_labels
from blocks.base import Grid
from blocks.errors import SpecError, argument


@dataclass(frozen=True, slots=True)
class Target:
    """What a network should answer: `wanted` (K, *patch), one mask per output channel.

    Channels are classes, the first of them background, where `exclusive`; else regions, which may
    overlap. Voxels outside `valid` (*patch) count nowhere. `names` are those of the foreground.
    """

    wanted: Tensor
    valid: Tensor
    names: tuple[str, ...]
    exclusive: bool

    @classmethod
    def of(cls, label: NDArray[Any], labels: Mapping[str, Any]) -> "Target":
        """Return the target of a label map (*patch) under the `labels` of a dataset.json."""
        values, _ = scored_labels({"labels": labels})
        exclusive = all(len(value) == 1 for value in values.values())
        parts = [(0,), *sorted(values.values())] if exclusive else list(values.values())
        names = sorted(values, key=values.__getitem__) if exclusive else list(values)
        cleaned = np.where(label < 0, 0, label)  # nnU-Net marks what lies outside by -1
        masks = np.stack([np.isin(cleaned, part) for part in parts])
        valid = cleaned != labels.get("ignore", -1)
        return cls(torch.from_numpy(masks), torch.from_numpy(valid), tuple(names), exclusive)

    @property
    def grid(self) -> Grid:
        return tuple(self.valid.shape)

    @property
    def foreground(self) -> Tensor:
        """Return the masks that are scored, one per name."""
        return (self.wanted & self.valid)[1 if self.exclusive else 0 :]

    @property
    def present(self) -> tuple[str, ...]:
        """Return the names that have a voxel here; only they are scored."""
        found = self.foreground.flatten(1).any(1).tolist()
        return tuple(name for name, here in zip(self.names, found, strict=True) if here)

    def to(self, device: torch.device) -> "Target":
        wanted, valid = self.wanted.to(device), self.valid.to(device)
        return Target(wanted, valid, self.names, self.exclusive)

    def dice(self, logits: Tensor) -> dict[str, float]:
        """Return the Dice of logits (K, *patch) for every name present, as nnU-Net decides them."""
        if self.exclusive:
            chosen = logits.argmax(0)
            predicted = torch.stack([chosen == i for i in range(1, len(self.wanted))])
        else:
            predicted = logits > 0
        predicted, wanted = (predicted & self.valid).flatten(1), self.foreground.flatten(1)
        sizes = [(predicted & wanted).sum(1), predicted.sum(1), wanted.sum(1)]
        scores = zip(self.names, *(counts.tolist() for counts in sizes), strict=True)
        return {name: dice_of_sizes(*found) for name, *found in scores if found[-1]}


@dataclass(frozen=True, slots=True)
class FixedPatch:
    """A patch: `image` (C, *patch), what it should become, its dataset, case and start (D, H, W).

    `case_size` is the whole case's, along the axes of the patch.
    """

    image: Tensor
    target: Target
    dataset: str
    case: str
    start: tuple[int, ...]
    case_size: Grid

    @property
    def padding(self) -> float:
        """Return the share of the patch that lies outside the case."""
        size = self.target.grid
        inside = [min(n, whole) for n, whole in zip(size, self.case_size, strict=True)]
        return 1 - math.prod(inside) / math.prod(size)


def mean_dice(scores: Mapping[str, float]) -> float:
    """Return the mean over the classes present."""
    return mean(scores.values())


def fixed_patch(
    dataset: PreprocessedDataset, patch_size: Grid, *, case: str | None = None
) -> FixedPatch:
    """Cut the patch that holds most classes, and most of them, from a training case.

    Without `case`: the first by name that has foreground. Two sizes give a slice, (H, W). Where a
    case is smaller than the patch it is centred and padded with zeros, as nnU-Net does.

    Raises:
        SpecError: no such case, no cases, files that are missing or cut off, voxels that cannot be
            used, no foreground, or the second half of a cascade.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    if dataset.settings.get("previous_stage") is not None:
        raise SpecError(
            "the second half of a cascade, whose input holds another network's labels",
            where=argument("configuration", dataset.configuration),
            suggestion="use the first half, or 3d_fullres",
        )
    names = preprocessed_cases(dataset)
    if (dataset.data_folder / PATCHES).exists():
        raise SpecError("a patch set, which holds no whole training case", where=dataset.name)
    if case is not None and case not in names:
        shown = ", ".join(difflib.get_close_matches(case, names) or names[:3])
        raise SpecError(
            f"not among the {len(names)} cases of {dataset.name}, e.g. {shown}",
            where=argument("case", case),
        )
    names = names if case is None else [case]
    check_files(dataset, names)
    folder = str(dataset.data_folder)
    cases = CheckedCases(infer_dataset_class(folder)(folder, names), FirstReads(dataset, names))
    size = (1,) * (3 - len(patch_size)) + tuple(patch_size)
    for name in names:
        data, labels, _, _ = cases.load_case(name)
        whole = Target.of(np.asarray(labels[0]), dataset.dataset_json["labels"])
        if not whole.present:
            continue
        start = best_window(whole.foreground.numpy(), size)
        label = crop(np.asarray(labels[0]), start, size, fill=-1)
        image = np.stack([crop(np.asarray(data[i]), start, size, fill=0) for i in range(len(data))])
        target = Target.of(label.reshape(patch_size), dataset.dataset_json["labels"])
        pixels = torch.from_numpy(image.reshape(-1, *patch_size)).float()
        return FixedPatch(
            image=pixels,
            target=target,
            dataset=dataset.name,
            case=name,
            start=start,
            case_size=labels.shape[-len(patch_size) :],
        )
    where = argument("case", case) if case else dataset.name
    raise SpecError("has no foreground label, so there is nothing to fit", where=where)
