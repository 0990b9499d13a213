"""What archspec predict refuses: images and models, each in one line and before the first mask."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from skimage.io import imsave

import archspec
from archspec.sources import of_trained

pytest.importorskip("nnunetv2")

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Volume = Callable[..., None]


def cut(path: Path, part: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def test_images_that_do_not_fit(
    refused: Refused, volume: Volume, turned: Path, grey: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()

    def told(*words: str, model: Path = turned, source: Path = images) -> None:
        refused(("predict", model, source, "-o", out), *words)
        for one in images.iterdir():
            one.unlink()

    shape = (9, 10, 8)
    told("no such file or folder", source=tmp_path / "none")
    told(f"{images}: no image that ends in .nii.gz or .nii", "found: none")
    imsave(images / "a_0000.png", np.zeros((9, 9), np.uint8), check_contrast=False)
    told("as those do that the network was trained on (found: .png)")
    volume(images / "a_0000.nii.gz", shape)
    told(f"{images / 'a'}: channel 1 (MR) is missing: a_0001.nii.gz")
    for number in range(3):
        volume(images / f"a_{number:04}.nii.gz", shape)
    told("has a channel 2, but the network takes 2, counted from 0")
    volume(images / "a.nii.gz", shape)
    told("takes 2 channels, each a file of its own: a_0000.nii.gz, a_0001.nii.gz")
    for name in ("a.nii.gz", "a.nii"):
        volume(images / name, shape)
    told("several files for the same channel: a.nii, a.nii.gz", model=grey)
    volume(images / "a_0001.nii.gz", shape)
    told("has a channel 1, but the network takes 1, counted from 0; four digits", model=grey)
    volume(images / "a_0000.nii.gz", shape)
    volume(images / "a_0001.nii.gz", (9, 10, 7))
    told("channels are of several sizes: 9 x 10 x 8, 9 x 10 x 7")
    volume(images / "a_0000.nii.gz", shape)
    volume(images / "a_0001.nii.gz", shape, affine=np.eye(4))
    told("channels are of several spacings: 0.9 x 0.7 x 2.5, 1 x 1 x 1")
    volume(images / "a.nii.gz", (9, 10))
    told("a 2-D image (9 x 10), but the network takes 3-D ones", model=grey)
    volume(images / "a.nii.gz", (3, 4, 5, 2))
    told("has 4 axes (3 x 4 x 5 x 2)", model=grey)
    for name in ("a.nii.gz", "a.nii"):  # SimpleITK would read zeros for what is gone
        volume(images / name, shape)
        cut(images / name)
        told(f"{images / name}: is cut off", model=grey)
    (images / "a.nii.gz").write_text("no image")
    told("a.nii.gz: cannot be read", model=grey)
    assert not out.exists()


def test_pictures_that_do_not_fit(
    refused: Refused, volume: Volume, flat: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()

    def told(*words: str) -> None:
        refused(("predict", flat, images, "-o", out), *words)
        for one in images.iterdir():
            one.unlink()

    def picture(name: str, *shape: int) -> None:
        imsave(images / name, np.zeros(shape, np.uint8), check_contrast=False)

    picture("a_0000.png", 9, 9)
    told("a_0000.png: 1 channels in 1 file, but the network takes 3")
    picture("a_0000.png", 9, 9, 4)
    told("a_0000.png: 4 channels in 1 file, but the network takes 3")
    for number in (0, 2):
        picture(f"a_{number:04}.png", 9, 9)
    told("channel 1 (G) is missing: a_0001.png")
    picture("from_2020.png", 9, 9, 3)
    told("has a channel 2020, but the network takes 3", "four digits at the end of a name")
    for number in range(3):
        picture(f"a_{number:04}.png", 9 + number, 9)
    told("channels are of several sizes: 9 x 9, 10 x 9, 11 x 9")
    picture("a.png", 40, 40, 3)
    cut(images / "a.png")
    told("a.png: cannot be read")
    volume(images / "a_0000.nii.gz", (9, 9, 9))
    told("no image that ends in .png", "found: .gz")
    assert not out.exists()


def test_what_only_the_voxels_tell(cli: Cli, volume: Volume, grey: Path, tmp_path: Path) -> None:
    info, file = archspec.model_info(grey), tmp_path / "net.safetensors"
    archspec.save(
        archspec.from_pretrained(grey),
        file,
        spacing=info.spacing,
        normalization=info.normalization,
        labels=info.labels,
        preprocessing={"image_reader_writer": "NibabelIO"},  # SimpleITK reads zeros for NaN
    )
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    for name in "abc":
        volume(images / f"{name}.nii.gz", (9, 10, 8))
    wrong = np.ones((9, 10, 8), np.float32)
    wrong[0, 0, :2] = np.nan
    nibabel.save(nibabel.Nifti1Image(wrong, np.eye(4)), images / "b.nii.gz")
    code, said, err = cli("predict", file, images, "-o", out)
    assert (code, said) == (2, "")
    *_, line = err.splitlines()
    assert line == f"archspec: {images / 'b.nii.gz'}: 2 voxels are no finite number"
    assert [one.name for one in out.iterdir()] == ["a.nii.gz"]  # whole, and nothing beside it


@pytest.mark.parametrize("weight", [float("nan"), 1e4])
def test_logits_that_are_too_large(
    cli: Cli, volume: Volume, grey: Path, tmp_path: Path, weight: float
) -> None:
    info, file = archspec.model_info(grey), tmp_path / "net.safetensors"
    net = archspec.from_pretrained(grey)
    with torch.no_grad():
        next(net.decoder.parameters()).fill_(weight)
    archspec.save(
        net,
        file,
        spacing=info.spacing,
        normalization=info.normalization,
        labels=info.labels,
        preprocessing={},
    )
    volume(tmp_path / "a.nii.gz", (9, 10, 8))
    code, _, err = cli("predict", file, tmp_path / "a.nii.gz", "-o", tmp_path / "masks")
    assert code == 2
    *_, line = err.splitlines()
    assert line.startswith(f"archspec: {tmp_path / 'a.nii.gz'}: the network's logits are no finite")


def test_models_that_are_refused(
    refused: Refused, grey: Path, turned: Path, turned_images: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "masks", tmp_path / "net.safetensors"

    def told(model: Path, *words: str) -> None:
        refused(("predict", model, turned_images, "-o", out), *words)

    model = of_trained(turned)
    info = model.info
    assert info.preprocessing is not None
    said = info.preprocessing.to_json()
    facts: dict[str, Any] = {
        "spacing": info.spacing,
        "normalization": info.normalization,
        "labels": info.labels,
        "preprocessing": said,
    }

    def saved(**changed: Any) -> Path:
        archspec.save(model.net, file, force=True, **facts | changed)
        return file

    told(tmp_path / "none", "none: no such file or folder")
    for name in ("net.onnx", "net.pt2"):
        (tmp_path / name).touch()
        told(tmp_path / name, f"{name}: computes the logits of one patch", "model folder")
    told(turned_images, "neither a saved network", "archspec convert-model makes a file")
    told(saved(spacing=None, preprocessing=None), f"{file}: does not say spacing, preprocessing")
    told(saved(normalization=["CTNormalization"] * 2), "takes mean, std, percentile_00_5")
    told(saved(normalization=["Own"] * 2), "normalization.0.scheme: this nnU-Net has no Own")
    for name, value in {
        "image_reader_writer": "OwnIO",
        "preprocessor_name": "join",
        "label_manager": "Own",
        "resampling_fn_data": "own",
    }.items():
        changed = saved(preprocessing=said | {name: value})
        told(changed, f"{value}" if name == "image_reader_writer" else f"preprocessing.{name}:")
    tiff = {"file_ending": ".tif", "image_reader_writer": "Tiff3DIO"}
    told(saved(preprocessing=said | tiff), "only NIfTI and natural images")
    options = {"resampling_fn_data_kwargs": {"ordre": 3}}
    told(saved(preprocessing=said | options), "unexpected keyword argument 'ordre'")
    line = ("predict", grey, turned_images, "-o", out)
    refused((*line, "--fold", 0), "--fold is for a model folder of nnU-Net")
    refused((*line, "--device", "gpu"), "--device gpu", "must be auto, cpu")
    assert not out.exists()
