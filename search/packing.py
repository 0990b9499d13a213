"""Write a patch set: where nnU-Net is, for where it is not."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import read_folds, split_cases
from blocks.base import SpecError
from search.data import TrialData
from search.loading import Loading, load_batches
from search.patch_set import PATCHES


def pack(
    dataset: PreprocessedDataset,
    out: Path,
    *,
    num_patches: int,
    batch_size: int,
    fold: int = 0,
    test_share: float = 0.0,
    seed: int = 0,
) -> Path:
    """Write the fold as a dataset below `out`, which nnUNet_preprocessed may name; return its file.

    At least `num_patches` patches, from batches of a size: it decides how many hold foreground.
    They depend on the seed alone. `test_share` and the seed must be those of the search.

    Raises:
        SpecError: labels are regions or ignored, it is 2-D or in `out` already, or the fold is not
            there.
    """
    folder = out / dataset.name
    labels = dataset.dataset_json["labels"]
    if "ignore" in labels or any(isinstance(value, list) for value in labels.values()):
        raise SpecError(f"{dataset.name}: regions and ignored labels cannot be packed")
    if len(dataset.patch_size) != 3:
        raise SpecError(f"{dataset.configuration}: only 3-D configurations can be packed")
    if folder.exists():
        raise SpecError(f"{folder}: exists already; give another folder")
    split = split_cases(dataset, fold=fold, test_share=test_share, seed=seed)
    data = TrialData(dataset, fold=fold, batch_size=batch_size, held_out=split.test)
    source = data.batches([[1, 1, 1], [2, 2, 2]], deep_supervision=False)
    steps = range(-(-num_patches // batch_size))
    drawn = list(load_batches(source, steps, seed=seed, loading=Loading()))
    arrays = {
        "images": torch.cat([images for images, _ in drawn]).numpy().astype(np.float16),
        "targets": np.concatenate([np.asarray(target, np.int16) for _, target in drawn]),
    }
    names = [*split.validation, *split.test]
    cases = data.dataset_class(data.folder, names)
    for name in names:
        image, reference, _, _ = cases.load_case(name)
        arrays[f"image {name}"] = image[:].astype(np.float16)
        arrays[f"labels {name}"] = np.asarray(reference[0], np.int16)
    packed = {"fold": fold, "validation": list(split.validation), "test": list(split.test)}
    return _write(dataset, folder, {**arrays, "packed": np.array(json.dumps(packed))})


def _write(dataset: PreprocessedDataset, folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    data = partial / dataset.data_folder.name
    data.mkdir(parents=True)
    folds = read_folds(dataset)
    for name, content in (
        (f"{dataset.plans['plans_name']}.json", dataset.plans),
        ("dataset.json", dataset.dataset_json),
        ("splits_final.json", folds),
    ):
        (partial / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    for case in {case for part in folds[0].values() for case in part}:
        (data / f"{case}.pkl").touch()  # a name; nnU-Net keeps properties here
    np.savez_compressed(data / PATCHES, **arrays)  # type: ignore[arg-type]
    partial.rename(folder)
    return folder / data.name / PATCHES
