"""nnU-Net's data, as trials read them: a case that cannot be used is named, by whoever meets it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.nnunet.voxels import CaseError
from blocks.base import SpecError
from search.trials.batches import Loading, load_batches
from search.trials.nnunet_data import TrialData
from search.trials.patch_set import pack

Spoil = Callable[[str], None]


@pytest.fixture
def dataset(dataset_environment: dict[str, str], tmp_path: Path) -> PreprocessedDataset:
    """Return the small phantom, copied."""
    found = find_dataset("902")
    shutil.copytree(found.folder, tmp_path / "902")
    return replace(found, folder=tmp_path / "902")


@pytest.fixture
def data(dataset: PreprocessedDataset) -> TrialData:
    return TrialData(dataset, fold=0, batch_size=2)


@pytest.fixture
def spoil(dataset: PreprocessedDataset) -> Spoil:
    """Return a function that puts one NaN into the corner of a case's image."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    def write(name: str) -> None:
        image, labels, _, properties = nnUNetDatasetBlosc2(
            str(dataset.data_folder), [name]
        ).load_case(name)
        values, sizes = image[:], {"chunks": image.chunks, "blocks": image.blocks}
        values[0, 0, 0, 0] = np.nan
        path, whole = dataset.data_folder / name, labels[:]
        for old in dataset.data_folder.glob(f"{name}*.b2nd"):
            old.unlink()
        nnUNetDatasetBlosc2.save_case(values, whole, properties, str(path), **sizes)

    return write


def test_batches_and_windows_have_the_patch_given(dataset: PreprocessedDataset) -> None:
    patch = (8, 24, 16)
    data = TrialData(dataset.with_patch(patch), fold=0, batch_size=3)
    images, target = next(data.batches([[1, 1, 1]], deep_supervision=False))
    assert images.shape[2:] == target.shape[2:] == patch and len(images) == 3  # type: ignore[union-attr]
    net = nn.Conv3d(dataset.num_channels, dataset.num_classes, 1)
    seen: set[tuple[int, ...]] = set()
    net.register_forward_hook(lambda _, given, out: seen.add(tuple(given[0].shape[2:])))
    data.score_cases(net, torch.device("cpu"), data.validation_cases[:1])
    assert seen == {patch}


@pytest.mark.parametrize("processes", [0, 2])
def test_a_training_case_is_named_at_its_first_batch(
    data: TrialData, spoil: Spoil, processes: int
) -> None:
    bad = data.train_cases[0]
    spoil(bad)
    batches = data.batches([[1, 1, 1]], deep_supervision=False)
    loading = Loading(processes, timeout=60)
    with pytest.raises(CaseError, match=f"^case {bad}: image holds NaN in 1 voxel; mend"):
        for _ in load_batches(batches, range(100), seed=0, loading=loading):
            pass


def test_a_validation_case_is_named_when_it_is_scored(data: TrialData, spoil: Spoil) -> None:
    bad = data.validation_cases[-1]
    spoil(bad)
    net = nn.Conv3d(data.dataset.num_channels, data.dataset.num_classes, 1)
    with pytest.raises(CaseError, match=f"^case {bad}: image holds NaN"):
        data.score(net, torch.device("cpu"))


def test_patches_of_a_bad_case_are_not_packed(
    dataset: PreprocessedDataset, data: TrialData, spoil: Spoil, tmp_path: Path
) -> None:
    bad = data.validation_cases[0]
    spoil(bad)
    with pytest.raises(SpecError, match=f"^case {bad}: image holds NaN"):
        pack(dataset, tmp_path / "out", num_patches=2, batch_size=2)
    assert not (tmp_path / "out").exists()
