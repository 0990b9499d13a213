"""Patches and cases in one .npz file, for a machine with a GPU and without nnU-Net.

`pack` writes it where nnU-Net is: training patches as its loader gives them, augmented, and the
preprocessed validation and test cases. The rest is PyTorch and MONAI. Trials of a patch set draw
from the same patches, so theirs is less augmentation than nnU-Net's; compare them with each other.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from archspec.nnunet.dataset import PreprocessedDataset
from archspec.training.step import autocast_dtype
from blocks.base import SpecError
from search.cases import CaseScores, Predicted, output_scales, scores_by_case, scores_of_all
from search.loading import Batch

PATCHES = "patches.npz"
"""Lies where the cases of a preprocessed dataset would."""
_WEIGHTS = {"dice_ce": (1.0, 1.0), "dice": (1.0, 0.0), "ce": (0.0, 1.0)}


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
                raise SpecError(f"{file}: packed with {name} {packed[name]}, but asked for {asked}")
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
            target = torch.from_numpy(targets[chosen]).float()
            scales = output_scales(strides) if deep_supervision else [[1.0]]
            outputs = [_scaled(target, scale).to(torch.int16) for scale in scales]
            found = outputs if deep_supervision else outputs[0]
            yield torch.from_numpy(images[chosen]).float(), found

    def loss(self, strides: list[list[int]], *, deep_supervision: bool, kind: str) -> nn.Module:
        """Return Dice and cross-entropy as nnU-Net has them, but for a constant."""
        batch_dice = bool(self._dataset.settings.get("batch_dice", False))
        scales = output_scales(strides) if deep_supervision else [[1.0]]
        return _Loss(kind, batch_dice=batch_dice, num_outputs=len(scales))

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean validation Dice per class and group, and `mean` over the classes."""
        found = self._predicted(net, device, self.validation_cases)
        return scores_of_all(found, self._dataset.dataset_json)

    def score_cases(self, net: nn.Module, device: torch.device, cases: list[str]) -> CaseScores:
        """Return Dice by case and class and group, and `mean` over the classes."""
        return scores_by_case(self._predicted(net, device, cases), self._dataset.dataset_json)

    def _predicted(self, net: nn.Module, device: torch.device, names: list[str]) -> Predicted:
        from monai.inferers.utils import sliding_window_inference

        net.eval()
        dtype = autocast_dtype(device)
        for name in names:
            image = torch.from_numpy(self._stored[f"image {name}"]).float().to(device)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype, enabled=dtype is not None),
            ):
                logits = sliding_window_inference(
                    image[None], self._dataset.patch_size, 1, net, overlap=0.5, mode="gaussian"
                )
            prediction: NDArray[Any] = logits[0].argmax(0).cpu().numpy()
            yield name, prediction, self._stored[f"labels {name}"]


class _Loss(nn.Module):
    """MONAI's Dice with cross-entropy; of several outputs the coarsest has no weight."""

    def __init__(self, kind: str, *, batch_dice: bool, num_outputs: int) -> None:
        from monai.losses import DiceCELoss

        super().__init__()
        dice, cross_entropy = _WEIGHTS[kind]
        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=batch_dice,
            smooth_nr=1e-5,
            smooth_dr=1e-5,
            lambda_dice=dice,
            lambda_ce=cross_entropy,
        )
        weights = [2.0**-number for number in range(num_outputs)]
        if num_outputs > 1:
            weights[-1] = 0.0
        self.weights = [weight / sum(weights) for weight in weights]

    def forward(self, logits: Any, target: Any) -> Tensor:
        if isinstance(logits, Tensor):
            logits, target = [logits], [target]
        losses = [
            weight * self.loss(one.float(), wanted.long())
            for weight, one, wanted in zip(self.weights, logits, target, strict=True)
            if weight
        ]
        return torch.stack(losses).sum()


def _scaled(target: Tensor, scale: list[float]) -> Tensor:
    """Return the target at an output's grid, as nnU-Net takes it there."""
    if all(factor == 1 for factor in scale):
        return target
    size = [round(length * factor) for length, factor in zip(target.shape[2:], scale, strict=True)]
    return nn.functional.interpolate(target, size, mode="nearest-exact")
