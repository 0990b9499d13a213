"""nnU-Net's own loader, augmentation, loss and sliding-window predictor, for one dataset.

Verified against nnunetv2 2.8.1. Its trainer's methods that only compute settings are called on a
stand-in, because constructing a trainer creates a results folder.
"""

import contextlib
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.loss import loss_without_trainer, output_scales
from archspec.nnunet.splits import split_cases
from archspec.nnunet.voxels import CheckedCases, FirstReads
from archspec.phantom.augmentation import AugmentationLimits
from archspec.training.step import Batch
from search.trials.cases import (
    CaseScores,
    Predicted,
    scores_of_all,
    scores_of_case,
)


class TrialData:
    """The training and validation cases of one fold of a preprocessed dataset.

    Cases in `held_out` do not train; they are the test part, which only `score_cases` opens.
    """

    def __init__(
        self,
        dataset: PreprocessedDataset,
        *,
        fold: int,
        batch_size: int,
        held_out: tuple[str, ...] = (),
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.plans = PlansManager(dataset.plans)
        self.configuration = self.plans.get_configuration(dataset.configuration)
        self.labels = self.plans.get_label_manager(dataset.dataset_json)
        self.folder = str(dataset.folder / self.configuration.data_identifier)
        self.dataset_class = infer_dataset_class(self.folder)
        split = split_cases(dataset, fold=fold)
        assert not set(held_out) & set(split.validation), "test cases must not validate"
        self.train_cases = [case for case in split.train if case not in held_out]
        self.validation_cases = list(split.validation)
        self.test_cases = list(held_out)
        self._reads = FirstReads(
            dataset, [*self.train_cases, *self.validation_cases, *self.test_cases]
        )

    def load(self, cases: list[str]) -> CheckedCases:
        """Return nnU-Net's class for these cases, whose voxels are looked at when first read."""
        return CheckedCases(self.dataset_class(self.folder, cases), self._reads)

    def batches(self, strides: list[list[int]], *, deep_supervision: bool) -> Iterator[Batch]:
        """Yield augmented patches (B, C, *patch) and targets (B, 1, *patch), one list per output.

        A phantom's dataset.json may bound the spatial augmentation, see `AugmentationLimits`.

        Draws from numpy's and torch's global generators: seed them before.
        """
        stand_in: Any = SimpleNamespace(
            configuration_manager=self.configuration, print_to_log_file=lambda *_: None
        )
        rotation, dummy_2d, initial_patch, mirror_axes = (
            nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(stand_in)
        )
        limits = AugmentationLimits.of(self.dataset.dataset_json)
        if limits is not None:
            patch, rotation = self.configuration.patch_size, limits.angles()
            turned = get_patch_size(patch, rotation, rotation, rotation, limits.scaling)
            initial_patch = [patch[0], *turned[1:]] if dummy_2d else turned
        transforms = nnUNetTrainer.get_training_transforms(
            self.configuration.patch_size,
            rotation,
            output_scales(strides) if deep_supervision else None,
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=self.configuration.use_mask_for_norm,
            foreground_labels=self.labels.foreground_labels,
            regions=self.labels.foreground_regions if self.labels.has_regions else None,
            ignore_label=self.labels.ignore_label,
        )
        if limits is not None:
            for transform in transforms.transforms:
                if isinstance(transform, SpatialTransform):
                    transform.scaling = limits.scaling
        loader = nnUNetDataLoader(
            self.load(self.train_cases),
            self.batch_size,
            initial_patch,
            self.configuration.patch_size,
            self.labels,
            oversample_foreground_percent=0.33 if limits is None else limits.foreground,
            transforms=transforms,
        )
        while True:
            batch = next(loader)
            yield batch["data"], batch["target"]

    def loss(self, strides: list[list[int]], *, deep_supervision: bool, kind: str) -> nn.Module:
        """Return the recipe's loss, with nnU-Net's weights per output under deep supervision."""
        return loss_without_trainer(
            has_regions=self.labels.has_regions,
            ignore_label=self.labels.ignore_label,
            batch_dice=self.configuration.batch_dice,
            num_outputs=len(output_scales(strides)) if deep_supervision else None,
            kind=kind,
        )

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the mean validation Dice per class and group, and `mean` over the classes.

        Scored at the preprocessed spacing, by sliding windows without mirroring.
        """
        found = self.predicted(net, device, self.validation_cases)
        return scores_of_all(found, self.dataset.dataset_json)

    def score_cases(self, net: nn.Module, device: torch.device, cases: list[str]) -> CaseScores:
        """Return Dice by case and class and group, and `mean` over the classes, as `score` does.

        NaN where a class is neither in the case nor predicted.
        """
        return {one.case: self.scores_of(one) for one in self.predicted(net, device, cases)}

    def scores_of(self, one: Predicted) -> dict[str, float]:
        """Return the scores of a case."""
        return scores_of_case(one.prediction, one.reference, self.dataset.dataset_json)

    def predicted(
        self, net: nn.Module, device: torch.device, names: list[str]
    ) -> Iterator[Predicted]:
        """Yield the cases as they are predicted, by sliding windows without mirroring."""
        with contextlib.redirect_stdout(io.StringIO()):  # on a CPU it reports a changed default
            predictor = nnUNetPredictor(use_mirroring=False, device=device, allow_tqdm=False)
        predictor.manual_initialization(
            net, self.plans, self.configuration, None, self.dataset.dataset_json, "none", None
        )
        cases = self.load(names)
        for case in names:
            data, reference, _, _ = cases.load_case(case)
            image, ignore = data[:], self.labels.ignore_label
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image))
            found = self.labels.convert_logits_to_segmentation(logits.float().cpu())
            yield Predicted(case, np.asarray(found), np.asarray(reference[0]), image, ignore)
