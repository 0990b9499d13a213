"""A trained model folder of nnU-Net, with weights that nothing trained, and images for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import archspec
from archspec.network.input_sizes import InputSizes
from archspec.network.resolve import resolve
from archspec.nnunet.contract import network_arguments
from archspec.nnunet.labels import num_segmentation_heads
from archspec.nnunet.network import ArchSpecNet

STAGE = {"width": 4, "mixer": {"kind": "conv"}}
LABELS = {"background": 0, "organ": 1, "vessel": 2}
RESAMPLE = "resample_data_or_seg_to_shape"
AFFINE = np.array([[0, -0.7, 0, 5], [0.9, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
"""Of a file whose axes are turned and moved against those of the scanner."""


def spline(order: int, is_seg: bool = False) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


@pytest.fixture(scope="session")
def trained_folder() -> Callable[..., Path]:
    """Return a function that writes the folder with plans as nnU-Net writes them; gives it."""

    def write(
        root: Path, patch: list[int], spacing: list[float], channels: list[str], **plans: Any
    ) -> Path:
        ending = plans.pop("file_ending", ".nii.gz")
        configuration = plans.pop("configuration", {})
        said = {"labels": LABELS, **plans.pop("said", {})}
        classes = num_segmentation_heads(said["labels"])
        tree = {
            "name": "tiny",
            "patch_size": patch,
            "encoder": {"stages": [{**STAGE, "downsample": {"stride": 2}}]},
            "decoder": {"kind": "sum"},
        }
        sizes = InputSizes(in_channels=len(channels), num_classes=classes, patch_size=tuple(patch))
        arguments = network_arguments(resolve(tree, sizes))
        net = ArchSpecNet(len(channels), classes, **arguments)
        with torch.no_grad():  # ties and empty masks would hide what is wrong
            for key, value in net.named_parameters():
                value.zero_() if key.endswith("bias") else value.normal_()
        name = "2d" if len(patch) == 2 else "3d_fullres"
        folder = root / f"nnUNetTrainer__tinyPlans__{name}"
        (folder / "fold_0").mkdir(parents=True)
        written = {
            "dataset_name": "Dataset903_Tiny",
            "plans_name": "tinyPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                str(index): {} for index in range(len(channels))
            },
            **plans,
            "configurations": {
                name: {
                    "data_identifier": f"tinyPlans_{name}",
                    "preprocessor_name": "DefaultPreprocessor",
                    "batch_size": 2,
                    "patch_size": patch,
                    "spacing": spacing,
                    "normalization_schemes": ["ZScoreNormalization"] * len(channels),
                    "use_mask_for_norm": [True] * len(channels),
                    "resampling_fn_data": RESAMPLE,
                    "resampling_fn_data_kwargs": spline(3),
                    "resampling_fn_seg": RESAMPLE,
                    "resampling_fn_seg_kwargs": spline(1, is_seg=True),
                    "resampling_fn_probabilities": RESAMPLE,
                    "resampling_fn_probabilities_kwargs": spline(1),
                    "architecture": {
                        "network_class_name": "archspec.nnunet.ArchSpecNet",
                        "arch_kwargs": arguments,
                        "_kw_requires_import": [],
                    },
                    **configuration,
                }
            },
        }
        (folder / "plans.json").write_text(json.dumps(written))
        description = {
            "channel_names": {str(index): one for index, one in enumerate(channels)},
            "file_ending": ending,
            **said,
        }
        (folder / "dataset.json").write_text(json.dumps(description))
        checkpoint = {
            "network_weights": net.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": name},
            "inference_allowed_mirroring_axes": tuple(range(len(patch))),
        }
        torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
        return folder

    return write


@pytest.fixture(scope="session")
def volume() -> Callable[..., None]:
    """Return a function that writes noise, smooth over a few voxels, in a frame of zeros.

    nnU-Net crops the frame.
    """

    def write(path: Path, shape: tuple[int, ...], seed: int = 0, affine: Any = AFFINE) -> None:
        rng = np.random.default_rng(seed)
        image = np.zeros(shape, np.float32)
        coarse = rng.normal(10, 4, [-(-size // 3) for size in shape])
        fine = np.kron(coarse, np.ones((3,) * len(shape)))[tuple(slice(size) for size in shape)]
        inside = (slice(2, -1),) * len(shape)
        image[inside] = fine[inside] + rng.normal(size=shape)[inside]
        nibabel.save(nibabel.Nifti1Image(image, affine), path)

    return write


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory, trained_folder: Callable[..., Path]) -> Path:
    """Return a model folder whose patch has its thick slices first, while files have them last."""
    root = tmp_path_factory.mktemp("turned")
    torch.manual_seed(0)
    ct = {"mean": 9.0, "std": 4.0, "percentile_00_5": 1.0, "percentile_99_5": 19.0}
    return trained_folder(
        root,
        [4, 16, 12],
        [4.0, 1.0, 0.8],
        ["CT", "MR"],
        transpose_forward=[1, 0, 2],
        transpose_backward=[1, 0, 2],
        foreground_intensity_properties_per_channel={"0": ct, "1": ct},
        configuration={
            "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
            "use_mask_for_norm": [False, True],
            "resampling_fn_data_kwargs": {
                "is_seg": False,
                "order": 2,
                "order_z": 1,
                "force_separate_z": True,
            },
        },
    )


@pytest.fixture(scope="session")
def turned_images(turned: Path, volume: Callable[..., None]) -> Path:
    """Return a case of two channels for it."""
    folder = turned.parent / "images"
    folder.mkdir()
    affine = np.diag([0.9, -3.0, 0.7, 1])  # of (W, H, D): H is thick, the first of the patch's
    for number in (0, 1):
        volume(folder / f"a_{number:04}.nii.gz", (17, 9, 20), number, affine)
    return folder


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory, trained_folder: Callable[..., Path]) -> Path:
    """Return a model folder of colour pictures, as small as one patch and larger."""
    root = tmp_path_factory.mktemp("flat")
    torch.manual_seed(0)
    plans = {"image_reader_writer": "NaturalImage2DIO", "file_ending": ".png"}
    return trained_folder(root, [16, 24], [1.0, 1.0], ["R", "G", "B"], **plans)


@pytest.fixture(scope="session")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of a one-channel network that archspec.save wrote, without any nnU-Net."""
    torch.manual_seed(0)
    tree = {
        "name": "grey",
        "patch_size": [8, 8, 8],
        "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
    }
    file = tmp_path_factory.mktemp("grey") / "net.safetensors"
    archspec.save(
        archspec.build(tree, num_classes=2),
        file,
        spacing=(2.5, 0.9, 0.7),
        normalization=["ZScoreNormalization"],
        labels={"background": 0, "organ": 1},
        preprocessing={},
    )
    return file
