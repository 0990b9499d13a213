"""Masks beside those of the command nnUNetv2_predict, with plans that nnU-Net made.

The weights are of no training; which they are is no matter of how images are prepared.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from skimage.io import imread, imsave

from archspec.nnunet.export import export_nnunet
from archspec.nnunet.network import ArchSpecNet

pytest.importorskip("nnunetv2")
pytestmark = pytest.mark.long

Cli = Callable[..., tuple[int, str, str]]
LABELS = {"background": 0, "organ": 1}
CASES = 3
TURNED, COLOUR = "Dataset904_Turned", "Dataset905_Colour"
STAGE = {"width": 4, "mixer": {"kind": "conv"}}


def spec(ndim: int) -> dict[str, Any]:
    return {
        "name": "tiny",
        "patch_size": [16] * ndim,
        "encoder": {"stages": [{**STAGE, "downsample": {"stride": step}} for step in (1, 2, 2, 2)]},
        "decoder": {"kind": "sum"},
        "deep_supervision": {"heads": 3},
    }


def write_volumes(folder: Path) -> None:
    """Write cases that are thick along their second axis, the whole of it oblique and moved."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, -3.1, 1.1])
    affine[:3, 3] = (12, -30, 4.5)
    for number in range(CASES):
        rng = np.random.default_rng(number)
        label = np.zeros((40 + number, 16, 44), np.uint8)
        label[12:25, 4:9, 10:30] = 1
        for channel in (0, 1):
            coarse = rng.normal(60, 20, (11, 4, 11))
            image = np.kron(coarse, np.ones((4, 4, 4)))[: len(label), :16, :44] + 40 * label
            image[:3] = image[:, :, -4:] = 0  # cropped
            name = f"case_{number}_{channel:04}.nii.gz"
            nifti = nibabel.Nifti1Image(image.astype(np.float32), affine)
            nibabel.save(nifti, folder / "imagesTr" / name)
        mask = nibabel.Nifti1Image(label, affine)
        nibabel.save(mask, folder / "labelsTr" / f"case_{number}.nii.gz")


def write_pictures(folder: Path) -> None:
    for number in range(CASES):
        rng = np.random.default_rng(number)
        label = np.zeros((50 + 9 * number, 70), np.uint8)
        label[12:25, 10:30] = 1
        coarse = rng.integers(0, 200, (14, 14, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((5, 5, 1), np.uint8))[: len(label)] + 50 * label[..., None]
        imsave(folder / "imagesTr" / f"case_{number}_0000.png", image, check_contrast=False)
        imsave(folder / "labelsTr" / f"case_{number}.png", label, check_contrast=False)


@pytest.fixture(scope="module")
def planned(
    tmp_path_factory: pytest.TempPathFactory, nnunet_command: Callable[..., None]
) -> dict[str, str]:
    """Return the environment of nnU-Net with both datasets planned."""
    root = tmp_path_factory.mktemp("planned")
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    variables = {name: str(root / name) for name in names}
    for name, channels, ending, write in (
        (TURNED, ["CT", "MR"], ".nii.gz", write_volumes),
        (COLOUR, ["R", "G", "B"], ".png", write_pictures),
    ):
        folder = root / "nnUNet_raw" / name
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        write(folder)
        description = {
            "channel_names": {str(index): one for index, one in enumerate(channels)},
            "labels": LABELS,
            "numTraining": CASES,
            "file_ending": ending,
        }
        (folder / "dataset.json").write_text(json.dumps(description))
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "nnUNet_n_proc_DA": "1"}
    variables |= {"nnUNet_def_n_proc": "1", **threads}
    numbers = [name[7:10] for name in (TURNED, COLOUR)]
    command = ("nnUNetv2_plan_and_preprocess", "-d", *numbers, "--no_pp", "-npfp", "1")
    nnunet_command(*command, env=os.environ | variables)
    return variables


@pytest.mark.parametrize(
    ("dataset", "configuration"), [(TURNED, "3d_fullres"), (TURNED, "2d"), (COLOUR, "2d")]
)
def test_masks_are_those_of_the_command(
    cli: Cli,
    planned: dict[str, str],
    nnunet_command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    dataset: str,
    configuration: str,
) -> None:
    for name, value in planned.items():
        monkeypatch.setenv(name, value)
    ndim = 2 if configuration == "2d" else 3
    export = export_nnunet(
        spec(ndim), dataset, configuration=configuration, plans_name=f"tiny_{ndim}"
    )
    plans = json.loads(export.path.read_text())
    assert plans["transpose_forward"] == ([1, 0, 2] if dataset == TURNED else [0, 1, 2])
    name = f"nnUNetTrainer__{export.plans_name}__{configuration}"
    folder = Path(planned["nnUNet_results"], dataset, name)
    (folder / "fold_0").mkdir(parents=True)
    shutil.copy(export.path, folder / "plans.json")
    raw = Path(planned["nnUNet_raw"], dataset)
    shutil.copy(raw / "dataset.json", folder)
    arguments = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    net = ArchSpecNet(3 if dataset == COLOUR else 2, 2, **arguments)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.endswith("bias"):  # or one class may be everywhere
                value.zero_()
    checkpoint = {
        "network_weights": net.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration},
        "inference_allowed_mirroring_axes": tuple(range(ndim)),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    theirs, ours, file = tmp_path / "theirs", tmp_path / "ours", tmp_path / "net.safetensors"
    images = raw / "imagesTr"
    nnunet_command(
        *("nnUNetv2_predict", "-i", str(images), "-o", str(theirs), "-d", dataset[7:10]),
        *("-c", configuration, "-p", export.plans_name, "-f", "0", "-device", "cpu"),
        *("-npp", "0", "-nps", "0"),
        env=os.environ | planned,
    )
    assert cli("convert-model", folder, "-o", file)[0] == 0
    for variable in planned:
        if variable.startswith("nnUNet_"):
            monkeypatch.delenv(variable)
    shutil.move(folder, tmp_path / "elsewhere")  # the file is enough
    code, said, err = cli("predict", file, images, "-o", ours, "--device", "cpu")
    assert (code, said) == (0, f"{CASES} masks written\n"), err
    for mask in sorted(ours.iterdir()):
        reference = theirs / mask.name
        if mask.suffix == ".png":
            one, other = imread(mask), imread(reference)
        else:
            a, b = nibabel.load(mask), nibabel.load(reference)
            image = nibabel.load(images / mask.name.replace(".nii", "_0000.nii"))
            assert np.allclose(a.affine, b.affine) and np.allclose(a.affine, image.affine)
            one, other = np.asarray(a.dataobj), np.asarray(b.dataobj)
        assert one.shape == other.shape and one.dtype == other.dtype
        assert 0.02 < other.mean() < 0.98 and (one == other).mean() >= 0.999
