"""Patches and cases in one .npz file, for a machine with a GPU and without nnU-Net.

`pack` writes it where nnU-Net is: training patches as its loader gives them, augmented, and the
preprocessed validation and test cases. The rest is PyTorch and MONAI. Trials of a patch set draw
from the same patches, so theirs is less augmentation than nnU-Net's; compare them with each other.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from archspec.files import make_folder, replacing, replacing_folder, write_text
from archspec.nnunet.check_data import PATCHES, check_data
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.loss import output_scales
from archspec.nnunet.splits import read_folds, split_cases
from archspec.training.step import Batch, autocast_dtype
from blocks.base import SpecError
from search.trials.batches import Loading, load_batches
from search.trials.cases import (
    CaseScores,
    Predicted,
    scores_of_all,
    scores_of_case,
)
from search.trials.host import ONE_CPU, TrainingHost
from search.trials.outputs import OutputsLoss, targets_of_outputs


class PatchSet:
    """The patches and cases that `pack` stored of one fold.

    Raises:
        SpecError: they are of another fold, or of other test cases.
    """

    def __init__(
        self,
        dataset: PreprocessedDataset,
        *,
        fold: int,
        batch_size: int,
        held_out: tuple[str, ...] = (),
    ) -> None:
        file = dataset.data_folder / PATCHES
        with np.load(file) as stored:
            self._stored = dict(stored)
        packed = json.loads(str(self._stored["packed"]))
        for name, asked in (("fold", fold), ("test", sorted(held_out))):
            if packed[name] != asked:
                raise SpecError(
                    f"packed with {name} {packed[name]}, but asked for {asked}", where=file
                )
        self._dataset = dataset
        self._batch_size = batch_size
        self.validation_cases: list[str] = packed["validation"]
        self.test_cases: list[str] = packed["test"]

    def batches(self, strides: list[list[int]], *, deep_supervision: bool) -> Iterator[Batch]:
        """Yield stored patches (B, C, *patch) and targets (B, 1, *patch), one list per output.

        Draws from numpy's global generator.
        """
        images, targets = self._stored["images"], self._stored["targets"]
        while True:
            chosen = np.random.randint(len(images), size=self._batch_size)
            target = torch.from_numpy(targets[chosen]).to(torch.int16)
            found = targets_of_outputs(target, strides) if deep_supervision else target
            yield torch.from_numpy(images[chosen]).float(), found

    def loss(self, strides: list[list[int]], *, deep_supervision: bool, kind: str) -> nn.Module:
        """Return Dice and cross-entropy as nnU-Net has them, but for a constant."""
        batch_dice = bool(self._dataset.settings.get("batch_dice", False))
        scales = output_scales(strides) if deep_supervision else [[1.0]]
        return OutputsLoss(kind, batch_dice=batch_dice, num_outputs=len(scales))

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean validation Dice per class and group, and `mean` over the classes."""
        found = self.predicted(net, device, self.validation_cases)
        return scores_of_all(found, self._dataset.dataset_json)

    def score_cases(self, net: nn.Module, device: torch.device, cases: list[str]) -> CaseScores:
        """Return Dice by case and class and group, and `mean` over the classes."""
        return {one.case: self.scores_of(one) for one in self.predicted(net, device, cases)}

    def scores_of(self, one: Predicted) -> dict[str, float]:
        """Return the scores of a case."""
        return scores_of_case(one.prediction, one.reference, self._dataset.dataset_json)

    def predicted(
        self, net: nn.Module, device: torch.device, names: list[str]
    ) -> Iterator[Predicted]:
        """Yield the cases as they are predicted."""
        from monai.inferers.utils import sliding_window_inference

        net.eval()
        dtype = autocast_dtype(device)
        for name in names:
            stored = self._stored[f"image {name}"]
            image = torch.from_numpy(stored).float().to(device)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype, enabled=dtype is not None),
            ):
                logits = sliding_window_inference(
                    image[None], self._dataset.patch_size, 1, net, overlap=0.5, mode="gaussian"
                )
            prediction: NDArray[Any] = logits[0].argmax(0).cpu().numpy()
            yield Predicted(name, prediction, self._stored[f"labels {name}"], stored)


def pack(
    dataset: PreprocessedDataset,
    out: Path,
    *,
    num_patches: int,
    batch_size: int,
    test_share: float = 0.0,
    host: TrainingHost = ONE_CPU,
) -> Path:
    """Write the fold as a dataset below `out`, which nnUNet_preprocessed may name; return its file.

    At least `num_patches` patches, from batches of a size: it decides how many hold foreground.
    They depend on the seed alone. `test_share`, and fold and seed of `host`, must be those of the
    search.

    Raises:
        SpecError: labels are regions or ignored, it is 2-D or in `out` already, the fold is not
            there, or the data cannot be trained on.
    """
    from search.trials.nnunet_data import TrialData

    folder = out / dataset.name
    labels = dataset.dataset_json["labels"]
    if "ignore" in labels or any(isinstance(value, list) for value in labels.values()):
        raise SpecError("regions and ignored labels cannot be packed", where=dataset.name)
    if len(dataset.patch_size) != 3:
        raise SpecError("only 3-D configurations can be packed", where=dataset.configuration)
    if folder.exists():
        raise SpecError("exists already", where=folder, suggestion="give another folder")
    check_data(dataset, fold=host.fold)
    split = split_cases(dataset, fold=host.fold, test_share=test_share, seed=host.seed)
    data = TrialData(dataset, fold=host.fold, batch_size=batch_size, held_out=split.test)
    source = data.batches([[1, 1, 1], [2, 2, 2]], deep_supervision=False)
    steps = range(-(-num_patches // batch_size))
    drawn = list(load_batches(source, steps, seed=host.seed, loading=Loading()))
    arrays = {
        "images": torch.cat([images for images, _ in drawn]).numpy().astype(np.float16),
        "targets": np.concatenate([np.asarray(target, np.int16) for _, target in drawn]),
    }
    names = [*split.validation, *split.test]
    cases = data.load(names)
    for name in names:
        image, reference, _, _ = cases.load_case(name)
        arrays[f"image {name}"] = image[:].astype(np.float16)
        arrays[f"labels {name}"] = np.asarray(reference[0], np.int16)
    packed = {"fold": host.fold, "validation": list(split.validation), "test": list(split.test)}
    return _write(dataset, folder, {**arrays, "packed": np.array(json.dumps(packed))})


def _write(dataset: PreprocessedDataset, folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folds = read_folds(dataset)
    with replacing_folder(folder) as draft:
        data = draft / dataset.data_folder.name
        make_folder(data)
        for name, content in (
            (f"{dataset.plans['plans_name']}.json", dataset.plans),
            ("dataset.json", dataset.dataset_json),
            ("splits_final.json", folds),
        ):
            write_text(draft / name, json.dumps(content, indent=1))
        for case in {case for part in folds[0].values() for case in part}:
            write_text(data / f"{case}.pkl", "")  # a name; nnU-Net keeps properties here
        with replacing(data / PATCHES) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return folder / data.name / PATCHES
